#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/env.h"
#include "core/base/result.h"
#include "core/base/unique_fd.h"
#include "core/store/cache_directory.h"
#include "core/store/catalog.h"
#include "core/store/file_digest.h"
#include "core/store/file_parts.h"
#include "core/store/filling_file.h"
#include "core/store/kept.h"

namespace qcache {

/// A sealed file opened for reading, with a lease on it. Move-only.
struct SealedFile {
  UniqueFd fd;
  Record record;
};

/// What find_sealed() found.
enum class SealedState {
  kAbsent,   ///< no record of the recipe, or no file: what was half there has been removed, what lost its
             ///< record is filling again
  kSuspect,  ///< the record is right, but the file's inode is not the one that was sealed: see demote()
  kTrusted,  ///< may be served
};

/// What peek_sealed() sees of a complete file.
struct SealedLook {
  Record record;
  bool trusted = false;  ///< find_sealed() would say kTrusted, else kSuspect
  uint64_t disk_bytes = 0;
};

/// What peek_filling() sees of a filling file.
struct FillingLook {
  std::string file;
  uint64_t disk_bytes = 0;
};

/// What vouches for the bytes of a file that is to be sealed.
struct HashedFile {
  std::vector<Sha256Digest> tiles;
  std::optional<FileParts> parts;
  Sha256Digest whole{};  ///< where there are no parts
};

/// One entry of the cache directory, as people see it.
struct CacheEntry {
  /// For a filling file: what its map says (names, recipe, size, tiles; accessed_ns is the time of its last mark or
  /// use), and what was kept where it was complete before (created_ns is not 0 then). The rest is empty.
  Record record;
  bool sealed = false;
  bool complete = false;  ///< a filling file of which every byte is in place, and that is to be sealed
  bool in_use = false;    ///< somebody holds a lease
  /// A sealed file that was made of an earlier state of its source and has not been opened since a later one's was
  /// complete.
  bool stale = false;
  uint64_t disk_bytes = 0;
  double progress = 1.0;  ///< share of tiles made
};

/// Totals over one cache directory.
struct CacheTotals {
  uint64_t sealed_files = 0;
  uint64_t filling_files = 0;
  uint64_t disk_bytes = 0;
};

/// What becomes of a file that somebody has open: dropped, its readers keep their bytes; or kept.
enum class WhenInUse { kDrop, kKeep };

/// The life of cached files across names: finding, sealing, demoting, dropping.
///
/// What is made of one model in one dtype and rank goes by one name, the *base* (artifact_file_name()). Files of
/// different recipes (another state of the model, another build) lie side by side: who comes first has that name,
/// others lie beside it (file_name_beside()). So no recipe ever takes a complete file, or one that is being made, from
/// another; aging does, and drop_all(). A `file` below is one of these names, a `base` stands for all of them.
///
/// The order that makes a crash harmless is kept here: bytes durable -> final name durable -> record committed; and in
/// dropping, name removed -> record erased, as a full disk may refuse the latter. A crash between any two steps leaves
/// a file without a record, a filling file (resumed), or a record without a file (erased at the next look). A file
/// without a record, also where the catalog was lost, becomes a filling file again whose tiles are all marked, by the
/// map that is kept beside it: each is checked before it is served, and none made that is right. Without a map of its
/// own it is dropped. Thread-safe; takes the directory lock (see file_lock.h) and must not be called with a qcache
/// Mutex held.
class Store {
 public:
  static Result<std::shared_ptr<Store>> open(Env& env, CacheDirectory directory);
  /// With a catalog that need not be the one in the directory.
  static Result<std::shared_ptr<Store>> open(Env& env, CacheDirectory directory, std::shared_ptr<Catalog> catalog);

  [[nodiscard]] const CacheDirectory& directory() const { return directory_; }
  [[nodiscard]] Catalog& catalog() { return *catalog_; }
  [[nodiscard]] Env& env() { return env_; }

  /// Looks a sealed file up for serving. For kTrusted `out` holds it, leased; for kSuspect its record. `recipe` as in
  /// FillingKey.
  Result<SealedState> find_sealed(const std::string& base, const Sha256Digest& recipe, SealedFile& out);

  /// What find_sealed() would find, by catalog and stat alone: no open, no side effect. Nothing where it is absent. For
  /// listings.
  Result<std::optional<SealedLook>> peek_sealed(const std::string& base, const Sha256Digest& recipe);
  /// The same for what open_filling() would go on with.
  Result<std::optional<FillingLook>> peek_filling(const std::string& base, const Sha256Digest& recipe);
  /// The records of all complete files of the name, the one made last first.
  Result<std::vector<Record>> find_all(const std::string& base);

  /// Opens the filling file of `key`, whose `file` is the base, or begins it: under that name, or beside it where a
  /// file of another recipe has it. What another recipe has begun and nobody is making loses the name, if it never was
  /// complete. Null where the file was sealed since find_sealed() did not find it: ask that again.
  Result<std::shared_ptr<FillingFile>> open_filling(FillingKey key);

  /// Turns a suspect sealed file back into a filling file whose tiles are all marked with the recorded digests (and no
  /// CRCs), so that each is hashed before it is served and a wrong one is made again. The record goes, what people have
  /// set is kept (kept.h). A pair that was being filled under that name loses it. Where the file has meanwhile become
  /// trusted or absent nothing is done: so look again with find_sealed() after.
  Status demote(const std::string& file);

  /// Pins the complete file of `recipe`, or unpins it; one that is to be sealed, or looked through again, is meant too.
  /// kNotFound where there is none.
  Status set_pinned(const std::string& base, const Sha256Digest& recipe, bool pinned);
  /// Whether the file that set_pinned() means is pinned; nothing where there is none.
  Result<std::optional<bool>> is_pinned(const std::string& base, const Sha256Digest& recipe);
  /// Unpins all that goes by the name. kNotFound where nothing of it is complete.
  Status unpin_all(const std::string& base);

  /// The two steps of sealing a filling file whose every byte has been written; whoever has the right to seal keeps it
  /// from the first to the last.
  ///
  /// The first hashes what lies on disk beside the tiles, which have their digests, and syncs the file: seconds, and no
  /// lock is held. (Without `places` it hashes all of it.) After a failed sync nobody knows what is on disk, so the
  /// filling file is dropped. The second renames it and commits its record,
  /// with `quality` (none: not measured). `draft` carries names, versions and times; recipe, size, digest, backing
  /// stamp and tile digests are filled in here, and what was kept of a complete file comes back. Nothing (and no error)
  /// where the filling file is no longer current: it was removed or replaced.
  Result<HashedFile> prepare_seal(FillingFile& filling, TilePlaces places = {}, const KeepGoing& keep_going = {});
  Result<std::optional<Record>> commit_seal(FillingFile& filling, Record draft, const HashedFile& hashed,
                                            std::span<const TensorQuality> quality = {});
  /// Both, without places.
  Result<std::optional<Record>> seal(FillingFile& filling, Record draft, std::span<const TensorQuality> quality = {},
                                     const KeepGoing& keep_going = {});

  /// Drops the file (sealed and filling) and its record, in use or not. Readers that have it open keep their bytes.
  /// Logs `reason`. Returns the disk bytes given up.
  Result<uint64_t> drop(const std::string& file, std::string_view reason);
  /// The same for all that goes by the name.
  Result<uint64_t> drop_all(const std::string& base, std::string_view reason);
  /// The same; `held` gets descriptors of what was dropped. Closing the last one of a large file frees its blocks,
  /// which may take seconds.
  Result<uint64_t> drop_all(const std::string& base, std::string_view reason, std::vector<UniqueFd>& held);
  /// Drops one sealed file if its record still is the one that was `seen`. With kKeep also nothing is done where it
  /// has been read or pinned since, or is in use. Nothing where it was kept.
  Result<std::optional<uint64_t>> drop_sealed(const Record& seen, std::string_view reason, WhenInUse when);
  /// Takes the names from a filling file whose bytes cannot be relied on, for this `reason`, which is logged. Best
  /// effort: readers check tiles they did not make.
  void abandon(const FillingFile& filling, std::string_view reason);
  /// Drops one filling file. Nothing where it was kept.
  Result<std::optional<uint64_t>> drop_filling(const std::string& file, std::string_view reason, WhenInUse when);
  /// Removes what crashes left behind: sealed files without a record or a map that nobody reads, records without a
  /// file, halves of filling pairs, maps of no file, temporary files. Returns what it removed, or with `dry_run` would.
  Result<std::vector<CacheEntry>> remove_leftovers(bool dry_run);

  /// Opens a sealed file after hashing it against its record, so that it may be served whatever its inode looks like;
  /// nothing where they differ. kNotFound where it is gone, kBusy where it is just being removed.
  Result<std::optional<SealedFile>> open_verified(const Record& record, const KeepGoing& keep_going = {});
  /// Opens the sealed file of a record to look through it in quiet: without a lease, as nobody is to keep it for that.
  /// An invalid descriptor where it is not there any more, or was touched since, or the record is another one by now.
  Result<UniqueFd> open_in_passing(const Record& record);
  /// Whether open_verified() would open it.
  Result<bool> verify(const Record& record, const KeepGoing& keep_going = {});

  /// Everything in the directory, sealed and filling, by virtual path.
  Result<std::vector<CacheEntry>> entries();
  Result<CacheTotals> totals();
  /// The share of its tiles that a filling file has, 0 to 1; 0 where there is none of this recipe. Reads the file's
  /// map.
  Result<double> filling_progress(const std::string& file, const Sha256Digest& recipe);

 private:
  Store(Env& env, CacheDirectory directory, std::shared_ptr<Catalog> catalog);

  // Those named ..._locked are called with the directory lock held.
  Status recover_unrecorded();
  Status settle_unrecorded(const std::string& file);
  Result<std::string> map_of_unrecorded(const std::string& file);
  Result<bool> recover_locked(const std::string& file);
  struct KeptInMap {
    UniqueFd map;
    Kept kept;
  };
  Result<std::optional<KeptInMap>> find_kept(const std::string& base, const Sha256Digest& recipe);
  Result<std::optional<Record>> find_record(const std::string& base, const Sha256Digest& recipe);
  Result<bool> is_trusted(const Record& record);
  Result<bool> is_taken_locked(const std::string& file);
  Result<std::optional<Record>> commit_sealed_locked(FillingFile& filling, Record record, const HashedFile& hashed,
                                                     std::span<const TensorQuality> quality);
  Result<bool> is_as_recorded(const Record& record, int fd, const KeepGoing& keep_going);
  void undo_rename_locked(const FillingFile& filling, const std::string& sealed_path);
  Result<bool> leave_to_other_names(const std::string& file, uint64_t size_bytes);
  Status demote_locked(const Record& record, const std::vector<Sha256Digest>& tiles);
  Result<uint64_t> drop_locked(const std::string& file, std::string_view reason, std::vector<UniqueFd>& held);
  Result<uint64_t> drop_sealed_locked(const std::string& file);
  Result<uint64_t> drop_filling_locked(const std::string& file);
  Result<std::vector<std::string>> filling_names();
  Result<std::optional<FillingKey>> filling_key(const std::string& file);
  Result<std::optional<CacheEntry>> filling_entry(const std::string& file);

  Env& env_;
  const CacheDirectory directory_;
  const std::shared_ptr<Catalog> catalog_;
};

}  // namespace qcache

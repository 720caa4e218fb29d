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
#include "core/store/filling_file.h"

namespace qcache {

/// A sealed file opened for reading, with a lease on it. Move-only.
struct SealedFile {
  UniqueFd fd;
  Record record;
};

/// What find_sealed() found.
enum class SealedState {
  kAbsent,   ///< no record, or no file: what was half there has been removed, what lost its record is filling again
  kStale,    ///< made from another recipe: removed, and to be made again
  kSuspect,  ///< the record is right, but the file's inode is not the one that was sealed: see demote()
  kTrusted,  ///< may be served
};

/// One entry of the cache directory, as people see it.
struct CacheEntry {
  /// For a filling file: what its map says (names, recipe, size, tiles; accessed_ns is the time of its last mark or use). The
  /// rest is empty.
  Record record;
  bool sealed = false;
  bool in_use = false;  ///< somebody holds a lease
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

  [[nodiscard]] const CacheDirectory& directory() const { return directory_; }
  [[nodiscard]] Catalog& catalog() { return *catalog_; }
  [[nodiscard]] Env& env() { return env_; }

  /// Looks a sealed file up for serving. For kTrusted `out` holds it, leased. `recipe` as in FillingKey.
  Result<SealedState> find_sealed(const std::string& file, const Sha256Digest& recipe, SealedFile& out);

  /// Whether find_sealed would say kTrusted, by catalog and stat alone: no open, no side effect. For listings.
  Result<std::optional<Record>> peek_sealed(const std::string& file, const Sha256Digest& recipe);

  /// Opens the filling file of `key`, or begins it. Null where the file was sealed since find_sealed() did not find it:
  /// ask that again.
  Result<std::shared_ptr<FillingFile>> open_filling(const FillingKey& key);

  /// Turns a suspect sealed file back into a filling file whose tiles are all marked with the recorded digests (and no
  /// CRCs), so that each is hashed before it is served and a wrong one is made again. The record is removed. A pair
  /// that was being filled under that name loses it. Where the file has meanwhile become trusted or absent nothing is
  /// done, and where it cannot be a filling file (its length changed) it is dropped: so look again with find_sealed()
  /// after.
  Status demote(const std::string& file);

  /// Seals a filling file whose every byte has been written. `draft` carries names, versions and times; recipe, size,
  /// digest, backing stamp and tile digests are filled in here. Hashes the whole file as it lies on disk, syncs,
  /// renames, commits, `quality` with it (none: not measured). Nothing (and no error) where the filling file is no
  /// longer current: it was removed or replaced. After a failed sync nobody knows what is on disk, so the filling file
  /// is dropped.
  Result<std::optional<Record>> seal(FillingFile& filling, Record draft, std::span<const TensorQuality> quality = {},
                                     const KeepGoing& keep_going = {});

  /// Drops the file (sealed and filling) and its record, in use or not. Readers that have it open keep their bytes.
  /// Logs `reason`. Returns the disk bytes given up.
  Result<uint64_t> drop(const std::string& file, std::string_view reason);
  /// Drops one sealed file if its record still is the one that was `seen`. With kKeep also nothing is done where it
  /// has been read or pinned since, or is in use. Nothing where it was kept.
  Result<std::optional<uint64_t>> drop_sealed(const Record& seen, std::string_view reason, WhenInUse when);
  /// Drops one filling file. Nothing where it was kept.
  Result<std::optional<uint64_t>> drop_filling(const std::string& file, std::string_view reason, WhenInUse when);
  /// Removes what crashes left behind: sealed files without a record or a map that nobody reads, records without a
  /// file, halves of filling pairs, maps of no file, temporary files. Returns what it removed, or with `dry_run` would.
  Result<std::vector<CacheEntry>> remove_leftovers(bool dry_run);

  /// Opens a sealed file after hashing it against its record, so that it may be served whatever its inode looks like;
  /// nothing where they differ. kNotFound where it is gone, kBusy where it is just being removed.
  Result<std::optional<SealedFile>> open_verified(const Record& record, const KeepGoing& keep_going = {});
  /// Whether open_verified() would open it.
  Result<bool> verify(const Record& record, const KeepGoing& keep_going = {});

  /// Everything in the directory, sealed and filling, by virtual path.
  Result<std::vector<CacheEntry>> entries();
  Result<CacheTotals> totals();

 private:
  Store(Env& env, CacheDirectory directory, std::shared_ptr<Catalog> catalog);

  // Those named ..._locked are called with the directory lock held.
  Status recover_unrecorded();
  Status settle_unrecorded(const std::string& file);
  Result<std::string> map_of_unrecorded(const std::string& file);
  Result<bool> recover_locked(const std::string& file);
  Result<bool> is_trusted(const Record& record);
  Result<std::optional<Record>> commit_sealed_locked(FillingFile& filling, Record record,
                                                     const std::vector<Sha256Digest>& tiles,
                                                     std::span<const TensorQuality> quality);
  void undo_rename_locked(const FillingFile& filling);
  void abandon(const FillingFile& filling, std::string_view reason);
  Status demote_locked(const Record& record, const std::vector<Sha256Digest>& tiles);
  Result<uint64_t> drop_sealed_locked(const std::string& file);
  Result<uint64_t> drop_filling_locked(const std::string& file);
  Result<std::vector<std::string>> filling_names();
  Result<std::optional<CacheEntry>> filling_entry(const std::string& file);

  Env& env_;
  const CacheDirectory directory_;
  const std::shared_ptr<Catalog> catalog_;
};

}  // namespace qcache

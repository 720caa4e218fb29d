#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "core/base/env.h"
#include "core/base/result.h"
#include "core/base/unique_fd.h"
#include "core/store/cache_directory.h"
#include "core/store/kept.h"
#include "core/store/tile_map.h"

namespace qcache {

/// A file being made: a sparse data file, and a map beside it in which every process making the same file sees at once
/// which tiles exist.
///
/// Always holds: a tile is marked only after all its bytes were written to the data file. A mark is not a proof: it
/// may come from a process that was killed, or from before a power cut, so whoever did not make a tile itself checks
/// it against the mark before serving it.
/// Thread-safe. Holds a lease on the data file, so that aging leaves the file alone while this lives, also once it is
/// sealed. When the names are removed or replaced (rm, a changed source), this object keeps working on its own inodes
/// and can no longer be sealed.
class FillingFile {
 public:
  /// resume(), else begin(), under the directory lock. Looks under the one name only: Store::open_filling() is for
  /// those who do not want a file made that is sealed already, or replaced that is of another recipe.
  static Result<std::shared_ptr<FillingFile>> open(Env& env, const CacheDirectory& directory, const FillingKey& key);
  /// Opens the pair under `key.file` if it was made for the same key; null where there is none. REQUIRES: the directory
  /// lock is held, as for begin().
  static Result<std::shared_ptr<FillingFile>> resume(Env& env, const CacheDirectory& directory, const FillingKey& key);
  /// Starts a new pair in the place of any old one (which, where it is still open elsewhere, keeps its inodes).
  /// kNoSpace where the disk is full.
  static Result<std::shared_ptr<FillingFile>> begin(Env& env, const CacheDirectory& directory, const FillingKey& key);
  ~FillingFile();
  FillingFile(const FillingFile&) = delete;
  FillingFile& operator=(const FillingFile&) = delete;

  [[nodiscard]] const FillingKey& key() const { return key_; }
  /// The data file, open for reading and writing; `size_bytes` long from the start.
  [[nodiscard]] int fd() const { return data_.get(); }

  /// What was kept of the file where it was complete before.
  [[nodiscard]] Result<std::optional<Kept>> kept() const { return read_kept(env_, map_fd_.get()); }

  /// Tells the kernel that no hole is left and that the file is about to be read from end to end: from now on it reads
  /// ahead, which until then would fill holes with zeros. A hint; nothing but speed depends on it.
  void expect_reading_through();

  /// Notes that the file is used now: aging counts from the last mark or this, whichever is later. A hint.
  void note_use();

  /// The mark of a tile, if somebody has made it.
  [[nodiscard]] std::optional<TileMark> mark_of(uint32_t tile) const;
  /// Publishes a made tile to all processes. REQUIRES: its bytes are written. May fail on a full disk, as TileMap
  /// tells; then the others do not know of the tile, and it is made again by whoever needs its mark.
  Status mark(uint32_t tile, const TileMark& mark);
  /// Completes a mark that has CRCs only.
  Status add_digest(uint32_t tile, const Sha256Digest& digest);
  /// Takes a mark back (its bytes proved wrong).
  Status unmark(uint32_t tile);
  [[nodiscard]] uint32_t marked_count() const;

  /// Whether the file is complete: every byte is in place, tiles and all else, and from then on nobody writes any, not
  /// even where one proves wrong: programs may have it mapped. (Like a mark, it is no proof of what is on the disk.)
  [[nodiscard]] bool is_complete() const;
  /// REQUIRES: every byte is written, and the right to seal.
  Status set_complete();
  /// Another descriptor of the data file, for reading only, with a lease of its own.
  [[nodiscard]] Result<UniqueFd> open_for_readers() const;

  /// Locks a tile against other processes (threads of this one coordinate themselves). False where another process
  /// still had it after `patience`: it may be stopped, and making the tile twice is harmless, as both write the same
  /// bytes. Returns at once where the lock is free.
  bool lock_tile(uint32_t tile, std::chrono::milliseconds patience);
  void unlock_tile(uint32_t tile);

  /// Locks the right to write static bytes and to seal against other processes. Whoever has it must look whether the
  /// names still lead here before writing: a byte written after another process has sealed the file would make it look
  /// tampered with. False where another process has it; where the filesystem has no such locks nobody is kept away.
  bool try_lock_seal();
  void unlock_seal();

  /// Whether the names in the cache directory still lead to this pair; false where that cannot be found out.
  [[nodiscard]] bool is_current() const { return names_lead_here().value_or(false); }
  /// The same for those who must tell "no" from "unknown".
  [[nodiscard]] Result<bool> names_lead_here() const;

 private:
  FillingFile(Env& env, CacheDirectory directory, FillingKey key);
  /// False where the pair under the name is not whole or not of this key.
  Result<bool> open_pair();
  Status start();
  void expect_holes();

  Env& env_;
  const CacheDirectory directory_;
  const FillingKey key_;
  UniqueFd data_;
  UniqueFd map_fd_;
  std::unique_ptr<TileMap> map_;
};

}  // namespace qcache

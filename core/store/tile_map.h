#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "core/base/digest.h"
#include "core/base/env.h"
#include "core/base/result.h"

namespace qcache {

/// What a filling file is and what its bytes are made from. `recipe` is a digest over everything that decides the
/// bytes: source identity, scheme name and version, layout version, size. Two filling files of one name whose
/// recipes differ never share bytes.
struct FillingKey {
  std::string file;
  std::string virtual_path;
  Sha256Digest recipe{};
  uint64_t size_bytes = 0;
  uint32_t tile_count = 0;

  static constexpr size_t kMaxFileName = 256;
  static constexpr size_t kMaxVirtualPath = 3072;

  /// Whether both mean the same bytes; the virtual path is for people only.
  [[nodiscard]] bool makes_same_bytes(const FillingKey& other) const;
};

/// What is known of one made tile; at least one of the two.
struct TileMark {
  static constexpr size_t kMaxStored = 6;
  /// The SHA-256 of its bytes (stored tensors in order), which the record of a sealed file will hold. A tile that a
  /// reader waits for is marked without it, because it takes as long as all else together; it is added before sealing.
  std::optional<Sha256Digest> digest;
  /// The CRC-32 of its bytes of each stored tensor, from which record trailers are combined. The tiles of a file that
  /// was sealed before lack it: whoever hashes them computes it and marks them again.
  std::optional<std::array<uint32_t, kMaxStored>> crc;
};

/// The map of a filling file, shared with every process that makes the same file.
///
/// Map file: `header (4096 bytes) | entry (64 bytes) per tile`, in the byte order of the machine. In the header, after
/// what the file is, stands whether it is complete; its end is for what kept.h says.
/// It is read and written by calls, and never mapped: on a full disk that copies what it writes (btrfs, a thin volume,
/// a snapshot) a store through a mapping is SIGBUS, whatever was allocated, and so is a look where somebody has cut the
/// file. A mark that cannot be read counts as none.
/// Always holds: an entry that is read as made is one that somebody wrote whole, as each carries a checksum of itself;
/// one that was being written when its process was killed or the power cut counts as not made. Of two processes that
/// mark one tile at once, one is heard.
/// Thread-safe.
class TileMap {
 public:
  /// Writes a map with no tile made into an empty file open for reading and writing, with all its blocks allocated:
  /// where blocks are written in place, marking never fails later.
  /// kNoSpace where the disk is full; kInvalidArgument where the key cannot be stored.
  static Status format(Env& env, int fd, const FillingKey& key);
  /// Of a file written by format(); kCorrupt where it is not whole or not such a file. REQUIRES: `fd` is open for
  /// writing where tiles are to be marked, and stays open as long as this lives.
  static Result<std::unique_ptr<TileMap>> open(Env& env, int fd);

  /// What the map is of; kCorrupt as for open(). Reads the header only.
  static Result<FillingKey> read_key(Env& env, int fd);
  /// A look from outside.
  struct Summary {
    FillingKey key;
    uint32_t marked_count = 0;
    bool complete = false;
  };
  static Result<Summary> summarize(Env& env, int fd);

  ~TileMap() = default;
  TileMap(const TileMap&) = delete;
  TileMap& operator=(const TileMap&) = delete;

  [[nodiscard]] const FillingKey& key() const { return key_; }
  [[nodiscard]] std::optional<TileMark> mark_of(uint32_t tile) const;
  /// kNoSpace where the disk is full and copies what it writes; then the tile is marked as before, or not at all. So it
  /// is with the other two.
  Status mark(uint32_t tile, const TileMark& mark);
  /// Adds a digest to a mark; where the tile is not marked nothing is done.
  Status add_digest(uint32_t tile, const Sha256Digest& digest);
  Status unmark(uint32_t tile);
  [[nodiscard]] uint32_t marked_count() const;

  /// Whether somebody has said that the file is complete: every byte is in place, and none is written any more. As a
  /// mark it is no proof.
  [[nodiscard]] bool is_complete() const;
  static Status set_complete(Env& env, int fd, bool complete);

 private:
  struct Entry;
  TileMap(Env& env, int fd, FillingKey key) : env_(env), fd_(fd), key_(std::move(key)) {}
  Status write(uint32_t tile, const Entry& entry);

  Env& env_;
  const int fd_;
  const FillingKey key_;
};

}  // namespace qcache

#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/base/byte_range.h"
#include "core/base/digest.h"
#include "core/base/env.h"
#include "core/base/result.h"
#include "core/store/file_digest.h"

namespace qcache {

/// Where in a file the bytes of each tile lie, in the order in which the tile's digest takes them. What no tile covers
/// is the file's rest. Kept as it is stored, some bytes to a tile: large models have millions. Not synchronized.
class TilePlaces {
 public:
  TilePlaces() = default;
  /// As encoded() gave them; for_each() finds out whether they are damaged.
  explicit TilePlaces(std::vector<uint8_t> encoded) : encoded_(std::move(encoded)) {}

  /// Adds the place of the next tile.
  void add(std::span<const ByteRange> ranges);
  [[nodiscard]] bool empty() const { return encoded_.empty(); }
  [[nodiscard]] const std::vector<uint8_t>& encoded() const { return encoded_; }

  using Use = std::function<Status(uint32_t tile, const std::vector<ByteRange>& ranges)>;
  /// Calls `use` for each tile in order, until it fails. kCorrupt where the encoded bytes are damaged.
  Status for_each(const Use& use) const;
  /// What no tile covers of a file so long, in order. kCorrupt as for_each(), and where tiles meet or reach beyond it.
  [[nodiscard]] Result<std::vector<ByteRange>> rest(uint64_t size_bytes) const;

 private:
  // Per tile: the number of ranges, then for each the distance from the end of the last one, and its size.
  std::vector<uint8_t> encoded_;
  uint64_t last_end_ = 0;
};

/// What vouches for the bytes of a file without one pass over all of it: a SHA-256 for each tile, which was taken while
/// the tile was made, and one for the rest.
struct FileParts {
  TilePlaces places;
  Sha256Digest rest{};

  /// Stands for all the digests: the SHA-256 of the size, the places, the rest and the tiles' digests.
  [[nodiscard]] Sha256Digest root(uint64_t size_bytes, std::span<const Sha256Digest> tiles) const;

  [[nodiscard]] std::vector<uint8_t> encode() const;
  /// kCorrupt where the bytes are too few.
  static Result<FileParts> decode(std::span<const uint8_t> bytes);
};

/// The SHA-256 of these ranges of a file, one after another; nothing where it ends before them.
Result<std::optional<Sha256Digest>> digest_of_ranges(Env& env, int fd, std::span<const ByteRange> ranges,
                                                     const KeepGoing& keep_going);

/// Whether a file so long has the bytes that the digests tell. False also where the parts are damaged.
Result<bool> has_parts(Env& env, int fd, uint64_t size_bytes, const FileParts& parts,
                       std::span<const Sha256Digest> tiles, const KeepGoing& keep_going);

}  // namespace qcache

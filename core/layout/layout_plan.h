#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/base/byte_range.h"
#include "core/base/mutex.h"
#include "core/layout/groups.h"

namespace qcache {

/// What the bytes of one piece of a planned file are.
enum class PieceKind : uint8_t {
  kStatic,   ///< known from the plan: headers, directory, gaps, constant tensors
  kStored,   ///< bytes of a stored tensor, produced by tiles
  kTrailer,  ///< the end of a record that depends on all bytes before it (torch zip: padding and CRC)
};

/// A run of bytes of one kind. `group` and `stored` say which stored tensor for kStored and kTrailer;
/// `stored_offset` is the position of the run's first byte in that stored tensor (kStored) or in the trailer
/// (kTrailer).
struct Piece {
  PieceKind kind = PieceKind::kStatic;
  ByteRange range;  ///< in the file
  uint32_t group = 0;
  uint32_t stored = 0;
  uint64_t stored_offset = 0;
};

/// The unit of work, of single flight and of verification: some consecutive units of one group.
struct Tile {
  uint32_t group = 0;
  UnitRange units;
};

/// From here on a plan, and the model that it holds, takes megabytes.
inline constexpr size_t kManyTensors = 8192;

/// Every byte of an artifact that can be known from headers alone, and where the others come from.
///
/// Built from (model, scheme, container) without reading tensor data, immutable, shared freely between threads.
/// Planning twice gives the same plan, byte for byte. It holds some 100 bytes per tensor, and the model; groups and the
/// texts of the file are made when they are asked for, and the groups used last are kept.
class LayoutPlan {
 public:
  virtual ~LayoutPlan() = default;

  /// Exact size of the file in bytes.
  [[nodiscard]] virtual uint64_t size_bytes() const = 0;
  [[nodiscard]] uint32_t group_count() const { return groups_.count(); }
  /// REQUIRES: index < group_count().
  [[nodiscard]] std::shared_ptr<const Group> group(uint32_t index) const QCACHE_EXCLUDES(mutex_);
  [[nodiscard]] uint32_t tile_count() const { return groups_.tile_count(); }
  /// REQUIRES: index < tile_count().
  [[nodiscard]] Tile tile(uint32_t index) const;

  /// The pieces that cover exactly `range` (clipped to the file), in file order.
  [[nodiscard]] virtual std::vector<Piece> locate(ByteRange range) const = 0;

  /// Writes the static bytes of `range` to their places in `out` (out[0] is byte range.offset); leaves the
  /// others alone. REQUIRES: range inside the file, out.size() == range.size.
  virtual void render_static(ByteRange range, std::span<std::byte> out) const = 0;

  /// The trailer of a stored tensor whose bytes have the CRC-32 `crc`; as long as Group::trailer_bytes says.
  [[nodiscard]] virtual std::vector<std::byte> trailer(uint32_t group, uint32_t stored, uint32_t crc) const = 0;

  /// The tiles that must be present before every byte of `range` can be served, merged and in order. A range
  /// that meets a trailer needs all tiles of that trailer's group.
  [[nodiscard]] std::vector<TileSpan> tiles_for(ByteRange range) const;

  /// Where the tile's bytes of stored tensor `stored` lie in the file, in kernel order.
  [[nodiscard]] std::vector<ByteRange> tile_file_ranges(const Tile& tile, uint32_t stored) const;
  /// The model as the plan sees it (SourceView): its tensors are those that Group::tensor means.
  [[nodiscard]] const SourceModel& source() const { return groups_.model(); }

 protected:
  explicit LayoutPlan(Groups groups);
  [[nodiscard]] const SourceModel& model() const { return source(); }
  /// Sets where the stored tensors of the group of this number lie, and what their trailers are.
  virtual void place(uint32_t index, Group& group) const = 0;

 private:
  struct Recent {
    uint32_t index = 0;
    std::shared_ptr<const Group> group;
  };

  const Groups groups_;
  mutable Mutex mutex_;
  // Group i, where it is kept, at place i modulo the size: in all but the largest models each has a place of its own.
  mutable std::vector<Recent> recent_ QCACHE_GUARDED_BY(mutex_);
};

}  // namespace qcache

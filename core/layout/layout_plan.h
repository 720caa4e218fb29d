#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/base/byte_range.h"
#include "core/base/result.h"
#include "core/model/source_model.h"
#include "core/quant/scheme.h"

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

/// Consecutive tiles [first, end).
struct TileSpan {
  uint32_t first = 0;
  uint32_t end = 0;
  friend bool operator==(const TileSpan&, const TileSpan&) = default;
};

/// One source tensor and where what is stored for it lies.
struct Group {
  uint32_t tensor = 0;  ///< index into SourceModel::tensors
  Encoding encoding;
  std::vector<uint64_t> data_offsets;   ///< in the file, per stored tensor
  std::vector<uint32_t> trailer_bytes;  ///< per stored tensor; 0 where none depends on tensor bytes
  TileSpan tiles;                       ///< this group's; empty where nothing is produced
  uint64_t units_per_tile = 1;
};

/// Every byte of an artifact that can be known from headers alone, and where the others come from.
///
/// Pure and immutable: built from (model, scheme, container) without reading tensor data, shared freely
/// between threads. Planning twice gives the same plan, byte for byte.
class LayoutPlan {
 public:
  virtual ~LayoutPlan() = default;

  /// Exact size of the file in bytes.
  [[nodiscard]] virtual uint64_t size_bytes() const = 0;
  [[nodiscard]] virtual std::span<const Group> groups() const = 0;
  [[nodiscard]] virtual uint32_t tile_count() const = 0;
  /// REQUIRES: index < tile_count().
  [[nodiscard]] virtual Tile tile(uint32_t index) const = 0;

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
};

/// Largest number of bytes a tile makes (unless one unit makes more), and reads from its source.
inline constexpr uint64_t kTileOutputBytes = uint64_t{2} << 20;
inline constexpr uint64_t kTileSourceBytes = uint64_t{8} << 20;

}  // namespace qcache

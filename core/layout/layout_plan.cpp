#include "core/layout/layout_plan.h"

#include <algorithm>

#include "core/layout/groups.h"

namespace qcache {
namespace {

/// Sorts spans and joins those that meet.
void merge(std::vector<TileSpan>& spans) {
  std::sort(spans.begin(), spans.end(), [](const TileSpan& a, const TileSpan& b) { return a.first < b.first; });
  size_t kept = 0;
  for (const TileSpan& span : spans) {
    if (kept > 0 && span.first <= spans[kept - 1].end) {
      spans[kept - 1].end = std::max(spans[kept - 1].end, span.end);
    } else {
      spans[kept++] = span;
    }
  }
  spans.resize(kept);
}

}  // namespace

std::vector<TileSpan> LayoutPlan::tiles_for(ByteRange range) const {
  std::vector<TileSpan> spans;
  for (const Piece& piece : locate(range)) {
    if (piece.kind == PieceKind::kStatic) {
      continue;
    }
    const Group& group = groups()[piece.group];
    if (piece.kind == PieceKind::kTrailer) {
      spans.push_back(group.tiles);
      continue;
    }
    // Asks which tile makes the first byte, then skips what that tile makes from there: true for every order in
    // which an encoding may lay out its units.
    const uint64_t end = piece.stored_offset + piece.range.size;
    uint64_t position = piece.stored_offset;
    while (position < end) {
      const uint64_t unit = group.encoding.unit_at(piece.stored, position);
      const auto index = static_cast<uint32_t>(group.tiles.first + unit / group.units_per_tile);
      if (!spans.empty() && spans.back().end == index) {
        ++spans.back().end;
      } else {
        spans.push_back({index, index + 1});
      }
      uint64_t next = position + 1;
      for (const ByteRange& made : group.encoding.stored_ranges(piece.stored, tile(index).units)) {
        if (made.contains(position)) {
          next = std::max(next, made.end());
        }
      }
      position = next;
    }
  }
  merge(spans);
  return spans;
}

std::vector<ByteRange> LayoutPlan::tile_file_ranges(const Tile& tile, uint32_t stored) const {
  const Group& group = groups()[tile.group];
  if (is_constant(group.encoding.stored[stored])) {
    return {};
  }
  std::vector<ByteRange> ranges = group.encoding.stored_ranges(stored, tile.units);
  std::erase_if(ranges, [](const ByteRange& range) { return range.empty(); });
  for (ByteRange& range : ranges) {
    range.offset += group.data_offsets[stored];
  }
  return ranges;
}

}  // namespace qcache

#include "core/layout/layout_plan.h"

#include <algorithm>
#include <utility>

namespace qcache {
namespace {

constexpr uint32_t kMostRecent = 512;

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

LayoutPlan::LayoutPlan(Groups groups)
    : groups_(std::move(groups)), recent_(std::clamp<uint32_t>(groups_.count(), 1, kMostRecent)) {}

std::shared_ptr<const Group> LayoutPlan::group(uint32_t index) const {
  {
    const MutexLock lock(mutex_);
    const Recent& recent = recent_[index % recent_.size()];
    if (recent.group != nullptr && recent.index == index) {
      return recent.group;
    }
  }
  auto made = std::make_shared<Group>(groups_.make(index));
  place(index, *made);
  const MutexLock lock(mutex_);
  recent_[index % recent_.size()] = {index, made};
  return made;
}

Tile LayoutPlan::tile(uint32_t index) const {
  const uint32_t number = groups_.group_of(index);
  const std::shared_ptr<const Group> planned = group(number);
  const uint64_t first = (index - planned->tiles.first) * planned->units_per_tile;
  return {number, {first, std::min(planned->units_per_tile, planned->encoding.unit_count() - first)}};
}

std::vector<TileSpan> LayoutPlan::tiles_for(ByteRange range) const {
  std::vector<TileSpan> spans;
  for (const Piece& piece : locate(range)) {
    if (piece.kind == PieceKind::kStatic) {
      continue;
    }
    const std::shared_ptr<const Group> planned = group(piece.group);
    if (piece.kind == PieceKind::kTrailer) {
      spans.push_back(planned->tiles);
      continue;
    }
    // Asks which tile makes the first byte, then skips what that tile makes from there: true for every order in
    // which an encoding may lay out its units.
    const uint64_t end = piece.stored_offset + piece.range.size;
    uint64_t position = piece.stored_offset;
    while (position < end) {
      const uint64_t unit = planned->encoding.unit_at(piece.stored, position);
      const auto index = static_cast<uint32_t>(planned->tiles.first + unit / planned->units_per_tile);
      if (!spans.empty() && spans.back().end == index) {
        ++spans.back().end;
      } else {
        spans.push_back({index, index + 1});
      }
      uint64_t next = position + 1;
      for (const ByteRange& made : planned->encoding.stored_ranges(piece.stored, tile(index).units)) {
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
  const std::shared_ptr<const Group> planned = group(tile.group);
  if (is_constant(planned->encoding.stored[stored])) {
    return {};
  }
  std::vector<ByteRange> ranges = planned->encoding.stored_ranges(stored, tile.units);
  std::erase_if(ranges, [](const ByteRange& range) { return range.empty(); });
  for (ByteRange& range : ranges) {
    range.offset += planned->data_offsets[stored];
  }
  return ranges;
}

}  // namespace qcache

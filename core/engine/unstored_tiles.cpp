#include "core/engine/unstored_tiles.h"

#include <algorithm>

namespace qcache {

uint64_t UnstoredTile::size_bytes() const {
  uint64_t bytes = 0;
  for (const PageBuffer& buffer : stored) {
    bytes += buffer.size();
  }
  return bytes;
}

void FromMemory::keep(const LayoutPlan& plan, ByteRange read, uint32_t index, const UnstoredTile& tile) {
  const Tile planned = plan.tile(index);
  const std::shared_ptr<const Group> group = plan.group(planned.group);
  marks_[index] = tile.mark;
  for (uint32_t i = 0; i < tile.stored.size(); ++i) {
    // A trailer is computed from all bytes of a folded tensor, which is small, and from the CRCs of others.
    const bool whole = group->encoding.stored[i].order == UnitOrder::kFolded;
    std::span<const std::byte> bytes = tile.stored[i];
    for (const ByteRange& range : plan.tile_file_ranges(planned, i)) {
      const ByteRange wanted = whole ? range : range.intersect(read);
      if (!wanted.empty()) {
        const auto part = bytes.subspan(wanted.offset - range.offset, wanted.size);
        pieces_.emplace_back(wanted, std::vector<std::byte>(part.begin(), part.end()));
      }
      bytes = bytes.subspan(range.size);
    }
  }
}

void FromMemory::overlay(ByteRange range, std::span<std::byte> out) const {
  for (const auto& [piece, bytes] : pieces_) {
    const ByteRange common = piece.intersect(range);
    if (!common.empty()) {
      const auto part = std::span(bytes).subspan(common.offset - piece.offset, common.size);
      std::ranges::copy(part, out.subspan(common.offset - range.offset).begin());
    }
  }
}

const TileMark* FromMemory::mark_of(uint32_t tile) const {
  const auto found = marks_.find(tile);
  return found == marks_.end() ? nullptr : &found->second;
}

void UnstoredTiles::add(uint32_t index, std::shared_ptr<const UnstoredTile> tile) {
  erase(index);
  tiles_.emplace_front(index, std::move(tile));
  uint64_t bytes = 0;
  size_t kept = 0;
  while (kept < tiles_.size() && (kept == 0 || bytes + tiles_[kept].second->size_bytes() <= kBytes)) {
    bytes += tiles_[kept++].second->size_bytes();
  }
  tiles_.resize(kept);
}

std::shared_ptr<const UnstoredTile> UnstoredTiles::find(uint32_t index) const {
  const auto found = std::ranges::find(tiles_, index, [](const auto& entry) { return entry.first; });
  return found == tiles_.end() ? nullptr : found->second;
}

void UnstoredTiles::erase(uint32_t index) {
  std::erase_if(tiles_, [&](const auto& entry) { return entry.first == index; });
}

}  // namespace qcache

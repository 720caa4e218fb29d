#include "core/layout/safetensors_plan.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "core/layout/groups.h"

namespace qcache {
namespace {

/// Copies bytes [skip, skip + out.size()) of `from`.
void copy_part(std::string_view from, uint64_t skip, std::span<std::byte> out) {
  std::memcpy(out.data(), from.data() + skip, out.size());
}

}  // namespace

uint32_t SafetensorsPlan::tile_count() const {
  return count_tiles(parts_.groups);
}

Tile SafetensorsPlan::tile(uint32_t index) const {
  return find_tile(parts_.groups, index);
}

template <typename Visit>
void SafetensorsPlan::for_each_record(ByteRange range, const Visit& visit) const {
  // Records have no gaps: the first whose end lies beyond the range's start meets it.
  auto record = std::partition_point(parts_.records.begin(), parts_.records.end(),
                                     [&](const SafetensorsRecord& r) { return r.range.end() <= range.offset; });
  for (; record != parts_.records.end() && record->range.offset < range.end(); ++record) {
    const ByteRange part = record->range.intersect(range);
    if (!part.empty()) {
      visit(*record, part);
    }
  }
}

std::vector<Piece> SafetensorsPlan::locate(ByteRange range) const {
  range = range.intersect({0, size_bytes()});
  std::vector<Piece> pieces;
  const auto add_static = [&](ByteRange part) {
    if (!pieces.empty() && pieces.back().kind == PieceKind::kStatic) {
      pieces.back().range.size += part.size;
    } else if (!part.empty()) {
      Piece piece;
      piece.range = part;
      pieces.push_back(piece);
    }
  };
  add_static(range.intersect({0, parts_.header.size()}));
  for_each_record(range, [&](const SafetensorsRecord& record, ByteRange part) {
    if (is_constant(parts_.groups[record.group].encoding.stored[record.stored])) {
      add_static(part);
      return;
    }
    Piece piece;
    piece.kind = PieceKind::kStored;
    piece.range = part;
    piece.group = record.group;
    piece.stored = record.stored;
    piece.stored_offset = part.offset - record.range.offset;
    pieces.push_back(piece);
  });
  return pieces;
}

void SafetensorsPlan::render_static(ByteRange range, std::span<std::byte> out) const {
  const ByteRange header = range.intersect({0, parts_.header.size()});
  if (!header.empty()) {
    copy_part(parts_.header, header.offset, out.subspan(header.offset - range.offset, header.size));
  }
  for_each_record(range, [&](const SafetensorsRecord& record, ByteRange part) {
    const StoredTensor& stored = parts_.groups[record.group].encoding.stored[record.stored];
    if (is_constant(stored)) {
      copy_part(stored.constant, part.offset - record.range.offset, out.subspan(part.offset - range.offset, part.size));
    }
  });
}

}  // namespace qcache

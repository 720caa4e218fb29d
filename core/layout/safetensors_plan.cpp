#include "core/layout/safetensors_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <string_view>

namespace qcache {
namespace {

std::string json_string(std::string_view text) {
  const bool plain = std::ranges::all_of(text, [](char c) { return c >= ' ' && c <= '~' && c != '"' && c != '\\'; });
  if (plain) {
    return fmt::format("\"{}\"", text);  // nearly all are, and the library takes ten times as long
  }
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

/// Copies bytes [skip, skip + out.size()) of `from`.
void copy_part(std::string_view from, uint64_t skip, std::span<std::byte> out) {
  std::memcpy(out.data(), from.data() + skip, out.size());
}

}  // namespace

std::string entry_text(const StoredTensor& stored) {
  Shape shape = stored.shape;
  if (!shape.empty()) {
    shape.back() *= elements_per_item(stored.dtype);  // no overflow: the bytes of the whole were counted
  }
  return fmt::format(R"(,{}:{{"dtype":"{}","shape":[{}],"data_offsets":[)", json_string(stored.name),
                     safetensors_name(stored.dtype), fmt::join(shape, ","));
}

std::string offsets_text(uint64_t begin, uint64_t end) {
  return fmt::format("{},{}]}}", begin, end);
}

void SafetensorsPlan::place(uint32_t index, Group& group) const {
  const size_t count = group.encoding.stored.size();
  const auto offsets = std::span(parts_.data_offsets).subspan(parts_.first_stored[index], count);
  group.data_offsets.assign(offsets.begin(), offsets.end());
  group.trailer_bytes.assign(count, 0);
}

template <typename Visit>
void SafetensorsPlan::for_each_record(ByteRange range, const Visit& visit) const {
  // Records have no gaps: the first whose end lies beyond the range's start meets it. Empty ones come last.
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
  add_static(range.intersect({0, parts_.header.size_bytes()}));
  for_each_record(range, [&](const SafetensorsRecord& record, ByteRange part) {
    if (record.constant) {
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
  const ByteRange header = range.intersect({0, parts_.header.size_bytes()});
  if (!header.empty()) {
    parts_.header.render(header.offset, out.subspan(header.offset - range.offset, header.size),
                         [this](size_t part, std::string& text) { append_header_part(part, text); });
  }
  for_each_record(range, [&](const SafetensorsRecord& record, ByteRange part) {
    if (record.constant) {
      const std::shared_ptr<const Group> planned = group(record.group);
      copy_part(planned->encoding.stored[record.stored].constant, part.offset - record.range.offset,
                out.subspan(part.offset - range.offset, part.size));
    }
  });
}

void SafetensorsPlan::append_header_part(size_t part, std::string& text) const {
  if (part == 0) {
    text += parts_.header_begin;
  } else if (part > parts_.records.size()) {
    text += parts_.header_end;
  } else {
    const SafetensorsRecord& record = parts_.records[part - 1];
    const uint64_t begin = record.range.offset - parts_.header.size_bytes();
    text += entry_text(group(record.group)->encoding.stored[record.stored]);
    text += offsets_text(begin, begin + record.range.size);
  }
}

}  // namespace qcache

#include "core/layout/torch_zip_plan.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/digest.h"
#include "core/layout/torch_pickle.h"

namespace qcache {
namespace {

constexpr uint32_t kCrcBytes = 4;
constexpr uint32_t kMaxTrailerBytes = 16;

/// Zeros, then the CRC-32 of everything before, given the tensor's own.
std::array<std::byte, kMaxTrailerBytes> make_trailer(uint32_t trailer_size, uint32_t tensor_crc) {
  std::array<std::byte, kMaxTrailerBytes> trailer{};
  const uint32_t zeros = trailer_size - kCrcBytes;
  const uint32_t crc = crc32(tensor_crc, std::span(trailer).first(zeros));
  for (uint32_t byte = 0; byte < kCrcBytes; ++byte) {
    trailer[zeros + byte] = static_cast<std::byte>(crc >> (8 * byte) & 0xFFU);
  }
  return trailer;
}

void copy(std::span<const std::byte> segment, uint64_t skip, std::span<std::byte> out) {
  std::memcpy(out.data(), segment.data() + skip, out.size());
}

void copy(std::string_view segment, uint64_t skip, std::span<std::byte> out) {
  copy(std::as_bytes(std::span(segment)), skip, out);
}

void copy(const ZipLocalHeader& header, uint64_t skip, std::span<std::byte> out) {
  if (skip < header.fixed.size()) {
    const size_t count = std::min<size_t>(out.size(), header.fixed.size() - skip);
    copy(header.fixed, skip, out.first(count));
    out = out.subspan(count);
  }
  std::ranges::fill(out, std::byte{'Z'});
}

}  // namespace

uint8_t trailer_bytes(uint64_t tensor_bytes, DType dtype) {
  return tensor_bytes == 0 ? 0 : static_cast<uint8_t>(std::max(kCrcBytes, item_bytes(dtype)));
}

void append_quantized_name(std::string& text, const std::string& tensor, bool is_first) {
  text += is_first ? "" : ",";
  text += nlohmann::json(tensor).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

ZipMember zip_member(const TorchRecord& record, uint64_t index, std::string& name) {
  name = "archive/data/";
  name += std::to_string(index);
  return {name, record.size() == 0 ? 0 : kTrailedCrc, record.size(), record.header_offset};
}

/// A maximal run of the file that comes from one place.
struct TorchZipPlan::Segment {
  enum class Kind {
    kBeforePickle,
    kPickle,
    kBeforeDescription,
    kDescription,
    kHeader,
    kTensor,
    kTrailer,
    kGap,
    kDirectory
  };
  Kind kind = Kind::kGap;
  ByteRange range;
  size_t record = 0;  ///< of kHeader, kTensor and kTrailer
};

TorchZipPlan::TorchZipPlan(Groups groups, Parts parts) : LayoutPlan(std::move(groups)), parts_(std::move(parts)) {}

uint64_t TorchZipPlan::size_bytes() const {
  return parts_.directory_offset + parts_.directory.size_bytes();
}

void TorchZipPlan::place(uint32_t index, Group& group) const {
  for (size_t s = 0; s < group.encoding.stored.size(); ++s) {
    const TorchRecord& record = parts_.records[parts_.first_records[index] + s];
    group.data_offsets.push_back(record.data_offset);
    group.trailer_bytes.push_back(record.constant ? 0 : record.trailer_bytes);
  }
}

template <typename Visit>
void TorchZipPlan::walk(ByteRange range, Visit visit) const {
  using Kind = Segment::Kind;
  const auto offer = [&](Kind kind, uint64_t begin, uint64_t end, size_t record) {
    const ByteRange whole{begin, end - begin};
    if (!whole.intersect(range).empty()) {
      visit(Segment{kind, whole, record});
    }
  };
  const std::vector<TorchRecord>& records = parts_.records;
  const auto start_of = [&](size_t i) {
    return i < records.size() ? records[i].header_offset : parts_.directory_offset;
  };

  uint64_t position = 0;
  const auto offer_next = [&](Kind kind, uint64_t bytes) {
    offer(kind, position, position + bytes, 0);
    position += bytes;
  };
  offer_next(Kind::kBeforePickle, parts_.before_pickle.size());
  offer_next(Kind::kPickle, parts_.pickle.size_bytes());
  offer_next(Kind::kBeforeDescription, parts_.before_description.size());
  offer_next(Kind::kDescription, parts_.description.size_bytes());
  offer(Kind::kGap, position, start_of(0), 0);
  const auto after = std::ranges::upper_bound(records, range.offset, {}, &TorchRecord::header_offset);
  auto index = static_cast<size_t>(after - records.begin());
  index -= index > 0 ? 1 : 0;  // the last record that starts at or before the range
  for (; index < records.size() && records[index].header_offset < range.end(); ++index) {
    const TorchRecord& record = records[index];
    const uint64_t tensor_end = record.data_offset + record.tensor_bytes;
    offer(Kind::kHeader, record.header_offset, record.data_offset, index);
    offer(Kind::kTensor, record.data_offset, tensor_end, index);
    offer(Kind::kTrailer, tensor_end, record.end(), index);
    offer(Kind::kGap, record.end(), start_of(index + 1), 0);
  }
  offer(Kind::kDirectory, parts_.directory_offset, size_bytes(), 0);
}

std::vector<Piece> TorchZipPlan::locate(ByteRange range) const {
  range = range.intersect({0, size_bytes()});
  std::vector<Piece> pieces;
  walk(range, [&](const Segment& segment) {
    Piece piece;
    piece.range = segment.range.intersect(range);
    const bool of_tensor = segment.kind == Segment::Kind::kTensor || segment.kind == Segment::Kind::kTrailer;
    if (of_tensor && !parts_.records[segment.record].constant) {
      piece.kind = segment.kind == Segment::Kind::kTensor ? PieceKind::kStored : PieceKind::kTrailer;
      piece.group = parts_.records[segment.record].group;
      piece.stored = parts_.records[segment.record].stored;
      piece.stored_offset = piece.range.offset - segment.range.offset;
    } else if (!pieces.empty() && pieces.back().kind == PieceKind::kStatic) {
      pieces.back().range.size += piece.range.size;
      return;
    }
    pieces.push_back(piece);
  });
  return pieces;
}

void TorchZipPlan::render_static(ByteRange range, std::span<std::byte> out) const {
  walk(range, [&](const Segment& segment) {
    const ByteRange wanted = segment.range.intersect(range);
    render(segment, wanted.offset - segment.range.offset, out.subspan(wanted.offset - range.offset, wanted.size));
  });
}

void TorchZipPlan::render(const Segment& segment, uint64_t skip, std::span<std::byte> out) const {
  switch (segment.kind) {
    case Segment::Kind::kBeforePickle:
      return copy(parts_.before_pickle, skip, out);
    case Segment::Kind::kPickle:
      return parts_.pickle.render(skip, out,
                                  [this](size_t part, std::string& text) { append_pickle_part(part, text); });
    case Segment::Kind::kBeforeDescription:
      return copy(parts_.before_description, skip, out);
    case Segment::Kind::kDescription:
      return parts_.description.render(skip, out,
                                       [this](size_t part, std::string& text) { append_description_part(part, text); });
    case Segment::Kind::kDirectory:
      return parts_.directory.render(skip, out,
                                     [this](size_t part, std::string& text) { append_directory_part(part, text); });
    case Segment::Kind::kGap:
      return static_cast<void>(std::ranges::fill(out, std::byte{0}));
    case Segment::Kind::kHeader: {
      std::string name;
      const ZipMember member = zip_member(parts_.records[segment.record], segment.record, name);
      return copy(local_header(member, parts_.data_alignment), skip, out);
    }
    case Segment::Kind::kTensor:
    case Segment::Kind::kTrailer:
      if (parts_.records[segment.record].constant) {
        render_constant(segment, skip, out);
      }
  }
}

void TorchZipPlan::render_constant(const Segment& segment, uint64_t skip, std::span<std::byte> out) const {
  const TorchRecord& record = parts_.records[segment.record];
  const std::shared_ptr<const Group> planned = group(record.group);
  const std::string& constant = planned->encoding.stored[record.stored].constant;
  if (segment.kind == Segment::Kind::kTensor) {
    copy(constant, skip, out);
  } else {
    copy(make_trailer(record.trailer_bytes, crc32(0, std::as_bytes(std::span(constant)))), skip, out);
  }
}

void TorchZipPlan::append_pickle_part(size_t part, std::string& text) const {
  if (part == 0) {
    text += pickle_begin();
  } else if (part > parts_.records.size()) {
    text += pickle_end();
  } else {
    const TorchRecord& record = parts_.records[part - 1];
    const std::shared_ptr<const Group> planned = group(record.group);
    const StoredTensor& stored = planned->encoding.stored[record.stored];
    // It fits: it did when the plan was made.
    (void)append_pickled_tensor(text, part - 1, stored.name, stored.dtype, stored.shape, record.size());
  }
}

void TorchZipPlan::append_description_part(size_t part, std::string& text) const {
  if (part == 0) {
    text += parts_.description_begin;
  } else if (part > group_count()) {
    text += kDescriptionEnd;
  } else {
    const auto index = static_cast<uint32_t>(part - 1);
    const std::shared_ptr<const Group> planned = group(index);
    if (planned->encoding.quantized) {
      append_quantized_name(text, model().tensors[planned->tensor].name, index == parts_.first_quantized);
    }
  }
}

void TorchZipPlan::append_directory_part(size_t part, std::string& text) const {
  if (part == 0) {
    text += parts_.directory_begin;
  } else if (part > parts_.records.size()) {
    text += parts_.directory_end;
  } else {
    std::string name;
    append_central_entry(text, zip_member(parts_.records[part - 1], part - 1, name));
  }
}

std::vector<std::byte> TorchZipPlan::trailer(uint32_t group_index, uint32_t stored, uint32_t crc) const {
  const uint32_t size = group(group_index)->trailer_bytes[stored];
  if (size == 0) {
    return {};
  }
  const auto trailer = make_trailer(size, crc);
  return {trailer.begin(), trailer.begin() + size};
}

}  // namespace qcache

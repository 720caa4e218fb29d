#include "core/layout/torch_zip_plan.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "core/base/digest.h"
#include "core/layout/groups.h"

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

/// The part of a segment that was asked for, and where in a buffer it goes.
struct Target {
  std::span<std::byte> out;
  uint64_t skip = 0;  ///< bytes of the segment before the first wanted one
};

void copy(std::span<const std::byte> segment, const Target& target) {
  std::memcpy(target.out.data(), segment.data() + target.skip, target.out.size());
}

void copy(std::string_view segment, const Target& target) {
  copy(std::as_bytes(std::span(segment)), target);
}

void copy(const ZipLocalHeader& header, Target target) {
  if (target.skip < header.fixed.size()) {
    const size_t count = std::min<size_t>(target.out.size(), header.fixed.size() - target.skip);
    copy(header.fixed, {target.out.first(count), target.skip});
    target.out = target.out.subspan(count);
  }
  std::ranges::fill(target.out, std::byte{'Z'});
}

}  // namespace

uint32_t trailer_bytes(uint64_t tensor_bytes, DType dtype) {
  return tensor_bytes == 0 ? 0 : std::max(kCrcBytes, item_bytes(dtype));
}

ZipMember zip_member(const TorchRecord& record, uint64_t index, std::string& name) {
  name = "archive/data/";
  name += std::to_string(index);
  return {name, record.size() == 0 ? 0 : kTrailedCrc, record.size(), record.header_offset};
}

/// A maximal run of the file that comes from one place.
struct TorchZipPlan::Segment {
  enum class Kind { kSmallRecords, kHeader, kTensor, kTrailer, kGap, kDirectory };
  Kind kind = Kind::kGap;
  ByteRange range;
  size_t record = 0;  ///< of kHeader, kTensor and kTrailer
};

TorchZipPlan::TorchZipPlan(Parts parts) : parts_(std::move(parts)) {}

uint64_t TorchZipPlan::size_bytes() const {
  return parts_.directory_offset + parts_.directory.size();
}
uint32_t TorchZipPlan::tile_count() const {
  return count_tiles(parts_.groups);
}
Tile TorchZipPlan::tile(uint32_t index) const {
  return find_tile(parts_.groups, index);
}

const StoredTensor& TorchZipPlan::stored_tensor(const TorchRecord& record) const {
  return parts_.groups[record.group].encoding.stored[record.stored];
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

  offer(Kind::kSmallRecords, 0, parts_.small_records.size(), 0);
  offer(Kind::kGap, parts_.small_records.size(), start_of(0), 0);
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
    if (of_tensor && !is_constant(stored_tensor(parts_.records[segment.record]))) {
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
    const Target target{out.subspan(wanted.offset - range.offset, wanted.size), wanted.offset - segment.range.offset};
    switch (segment.kind) {
      case Segment::Kind::kSmallRecords:
        return copy(parts_.small_records, target);
      case Segment::Kind::kDirectory:
        return copy(parts_.directory, target);
      case Segment::Kind::kGap:
        return static_cast<void>(std::ranges::fill(target.out, std::byte{0}));
      case Segment::Kind::kHeader: {
        std::string name;
        const ZipMember member = zip_member(parts_.records[segment.record], segment.record, name);
        return copy(local_header(member, parts_.data_alignment), target);
      }
      case Segment::Kind::kTensor:
      case Segment::Kind::kTrailer: {
        const TorchRecord& record = parts_.records[segment.record];
        const StoredTensor& stored = stored_tensor(record);
        if (!is_constant(stored)) {
          return;
        }
        return segment.kind == Segment::Kind::kTensor
                   ? copy(stored.constant, target)
                   : copy(make_trailer(record.trailer_bytes, record.constant_crc), target);
      }
    }
  });
}

std::vector<std::byte> TorchZipPlan::trailer(uint32_t group, uint32_t stored, uint32_t crc) const {
  const uint32_t size = parts_.groups[group].trailer_bytes[stored];
  if (size == 0) {
    return {};
  }
  const auto trailer = make_trailer(size, crc);
  return {trailer.begin(), trailer.begin() + size};
}

}  // namespace qcache

#include "core/quant/encoding.h"

#include <algorithm>

#include "core/base/checked.h"

namespace qcache {

uint64_t StoredTensor::size_bytes() const {
  if (!constant.empty()) {
    return constant.size();
  }
  uint64_t bytes = item_bytes(dtype);
  for (const uint64_t extent : shape) {
    bytes *= extent;
  }
  return bytes;
}

namespace {

uint64_t pieces_per_unit(UnitOrder order) {
  return order == UnitOrder::kFolded ? 2 : 1;
}

/// The bytes [first * per_piece, (first + count) * per_piece), cut off at `total`.
void append_pieces(uint64_t first, uint64_t count, uint64_t per_piece, uint64_t total, std::vector<ByteRange>& out) {
  const uint64_t begin = std::min(first * per_piece, total);
  const uint64_t end = std::min((first + count) * per_piece, total);
  if (begin != end) {
    out.push_back(ByteRange{begin, end - begin});
  }
}

std::vector<ByteRange> unit_bytes(UnitOrder order, UnitRange units, uint64_t unit_count, uint64_t per_piece,
                                  uint64_t total) {
  std::vector<ByteRange> out;
  if (order == UnitOrder::kOnce) {
    if (units.first == 0 && units.count > 0 && total > 0) {
      out.push_back(ByteRange{0, total});
    }
    return out;
  }
  append_pieces(units.first, units.count, per_piece, total, out);
  if (order == UnitOrder::kFolded) {
    append_pieces(unit_count + units.first, units.count, per_piece, total, out);
  }
  return out;
}

}  // namespace

uint64_t Encoding::unit_count() const {
  return ceil_div(ceil_div(source_bytes, source_bytes_per_unit), pieces_per_unit(source_order));
}

std::vector<ByteRange> Encoding::source_ranges(UnitRange units) const {
  return unit_bytes(source_order, units, unit_count(), source_bytes_per_unit, source_bytes);
}

std::vector<ByteRange> Encoding::stored_ranges(size_t index, UnitRange units) const {
  const StoredTensor& tensor = stored[index];
  return unit_bytes(tensor.order, units, unit_count(), tensor.bytes_per_unit, tensor.size_bytes());
}

uint64_t Encoding::unit_at(size_t index, uint64_t offset) const {
  const StoredTensor& tensor = stored[index];
  if (tensor.order == UnitOrder::kOnce) {
    return 0;
  }
  const uint64_t piece = offset / tensor.bytes_per_unit;
  return tensor.order == UnitOrder::kFolded ? piece % unit_count() : piece;
}

uint64_t Encoding::source_bytes_of_unit() const {
  return pieces_per_unit(source_order) * source_bytes_per_unit;
}

uint64_t Encoding::stored_bytes_of_unit(size_t index) const {
  const StoredTensor& tensor = stored[index];
  return tensor.order == UnitOrder::kOnce ? tensor.size_bytes() : pieces_per_unit(tensor.order) * tensor.bytes_per_unit;
}

void Encoding::encode_units(std::span<const std::byte> source, std::span<const std::span<std::byte>> into,
                            const Survey* survey_found) const {
  encode({.source_dtype = source_dtype,
          .row_elements = row_elements,
          .group_elements = group_elements,
          .source = source,
          .stored = into,
          .survey = survey_found});
}

void Encoding::decode_units(std::span<const std::span<const std::byte>> from, const Survey* survey_found,
                            std::span<float> values) const {
  decode({.source_dtype = source_dtype,
          .row_elements = row_elements,
          .group_elements = group_elements,
          .stored = from,
          .survey = survey_found,
          .values = values});
}

}  // namespace qcache

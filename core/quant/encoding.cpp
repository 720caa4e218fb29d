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

uint64_t Encoding::unit_count() const {
  return ceil_div(source_bytes, source_bytes_per_unit);
}

namespace {

/// The units' part of something that holds `per_unit` bytes for each, `total` altogether.
std::vector<ByteRange> unit_bytes(UnitRange units, uint64_t per_unit, uint64_t total) {
  const uint64_t begin = std::min(units.first * per_unit, total);
  const uint64_t end = std::min(units.end() * per_unit, total);
  if (begin == end) {
    return {};
  }
  return {ByteRange{begin, end - begin}};
}

}  // namespace

std::vector<ByteRange> Encoding::source_ranges(UnitRange units) const {
  return unit_bytes(units, source_bytes_per_unit, source_bytes);
}

std::vector<ByteRange> Encoding::stored_ranges(size_t index, UnitRange units) const {
  const StoredTensor& tensor = stored[index];
  return unit_bytes(units, tensor.bytes_per_unit, tensor.size_bytes());
}

uint64_t Encoding::unit_at(size_t index, uint64_t offset) const {
  return offset / stored[index].bytes_per_unit;
}

}  // namespace qcache

#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

namespace qcache {

/// The half-open range [offset, offset + size) of bytes in a file or a tensor. An empty range has size 0
/// and any offset. `offset + size` never overflows: whoever builds one from outside data checks that first.
struct ByteRange {
  uint64_t offset = 0;
  uint64_t size = 0;

  [[nodiscard]] constexpr uint64_t end() const { return offset + size; }
  [[nodiscard]] constexpr bool empty() const { return size == 0; }
  [[nodiscard]] constexpr bool contains(uint64_t position) const {
    return position >= offset && position - offset < size;
  }
  /// The bytes both ranges cover; empty where they do not meet.
  [[nodiscard]] constexpr ByteRange intersect(const ByteRange& other) const {
    const uint64_t begin = std::max(offset, other.offset);
    const uint64_t stop = std::min(end(), other.end());
    return begin < stop ? ByteRange{begin, stop - begin} : ByteRange{begin, 0};
  }
  friend constexpr bool operator==(const ByteRange&, const ByteRange&) = default;
};

/// Bytes in all ranges together. REQUIRES: that does not overflow.
[[nodiscard]] constexpr uint64_t total_size(std::span<const ByteRange> ranges) {
  uint64_t total = 0;
  for (const ByteRange& range : ranges) {
    total += range.size;
  }
  return total;
}

}  // namespace qcache

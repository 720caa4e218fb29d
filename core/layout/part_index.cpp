#include "core/layout/part_index.h"

#include <algorithm>
#include <cstring>

namespace qcache {
namespace {

constexpr size_t kStride = 64;

}  // namespace

void PartIndex::add(uint64_t bytes) {
  if (count_++ % kStride == 0) {
    starts_.push_back(size_bytes_);
  }
  size_bytes_ += bytes;
}

void PartIndex::render(uint64_t offset, std::span<std::byte> out, const AppendPart& append) const {
  if (out.empty()) {
    return;
  }
  const auto known = std::ranges::upper_bound(starts_, offset) - starts_.begin() - 1;
  uint64_t start = starts_[static_cast<size_t>(known)];
  std::string text;
  for (size_t part = static_cast<size_t>(known) * kStride; !out.empty(); ++part) {
    text.clear();
    append(part, text);
    const uint64_t end = start + text.size();
    if (offset < end) {
      const size_t count = std::min<size_t>(out.size(), end - offset);
      std::memcpy(out.data(), text.data() + (offset - start), count);
      out = out.subspan(count);
      offset += count;
    }
    start = end;
  }
}

}  // namespace qcache

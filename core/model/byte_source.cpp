#include "core/model/byte_source.h"

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>

namespace qcache {

Status ByteSource::check_inside(uint64_t offset, uint64_t size) const {
  if (offset > this->size() || size > this->size() - offset) {
    return fail(ErrorKind::kInvalidModel,
                fmt::format("{} bytes are needed at offset {}, but the file has only {}: is it complete?", size, offset,
                            this->size()));
  }
  return {};
}

Status ByteSource::read(uint64_t offset, std::span<std::byte> out) {
  QCACHE_TRY(check_inside(offset, out.size()));
  return read_inside(offset, out);
}

Result<std::vector<char>> ByteSource::read(uint64_t offset, uint64_t size) {
  QCACHE_TRY(check_inside(offset, size));
  std::vector<char> bytes(size);
  QCACHE_TRY(read_inside(offset, std::as_writable_bytes(std::span(bytes))));
  return bytes;
}

FileBytes::FileBytes(Env& env, int fd, std::string path, uint64_t size)
    : env_(env), fd_(fd), path_(std::move(path)), size_(size) {}

Status FileBytes::read_inside(uint64_t offset, std::span<std::byte> out) {
  QCACHE_TRY_ASSIGN(const size_t got, env_.read_at(fd_, out, offset));
  if (got != out.size()) {
    return fail(ErrorKind::kSourceChanged, path_ + " became shorter while its header was read");
  }
  std::array<std::byte, 2 * sizeof(uint64_t)> place{};
  for (size_t i = 0; i < sizeof(uint64_t); ++i) {
    place[i] = static_cast<std::byte>(offset >> (8 * i));
    place[sizeof(uint64_t) + i] = static_cast<std::byte>(uint64_t{out.size()} >> (8 * i));
  }
  digest_.update(place);
  digest_.update(out);
  return {};
}

Status MemoryBytes::read_inside(uint64_t offset, std::span<std::byte> out) {
  const auto from = std::as_bytes(std::span(bytes_)).subspan(offset, out.size());
  std::copy(from.begin(), from.end(), out.begin());
  return {};
}

}  // namespace qcache

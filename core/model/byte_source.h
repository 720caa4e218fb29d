#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/digest.h"
#include "core/base/env.h"
#include "core/base/result.h"

namespace qcache {

/// Bytes of known number that a header reader looks into by position. One thread.
class ByteSource {
 public:
  virtual ~ByteSource() = default;

  [[nodiscard]] virtual uint64_t size() const = 0;

  /// Fills `out` from position `offset`. kInvalidModel where that is not inside the bytes, so that a position
  /// made of a stranger's numbers may be passed as it is.
  Status read(uint64_t offset, std::span<std::byte> out);
  /// The same, into memory of its own. The range is checked before anything is allocated.
  Result<std::vector<char>> read(uint64_t offset, uint64_t size);

 private:
  [[nodiscard]] Status check_inside(uint64_t offset, uint64_t size) const;
  /// REQUIRES: the range is inside.
  virtual Status read_inside(uint64_t offset, std::span<std::byte> out) = 0;
};

/// An open file as it was when `size` was taken. Remembers by a digest what was read and where: the same calls
/// give the same digest exactly as long as the same bytes are there.
class FileBytes final : public ByteSource {
 public:
  /// `path` is for messages; the file stays the caller's.
  FileBytes(Env& env, int fd, std::string path, uint64_t size);

  [[nodiscard]] uint64_t size() const override { return size_; }
  /// Over all reads so far; none may follow.
  [[nodiscard]] Sha256Digest finish_digest() { return digest_.finish(); }

 private:
  Status read_inside(uint64_t offset, std::span<std::byte> out) override;

  Env& env_;
  const int fd_;
  const std::string path_;
  const uint64_t size_;
  Sha256 digest_;
};

/// Bytes in memory, which outlive it.
class MemoryBytes final : public ByteSource {
 public:
  explicit MemoryBytes(std::string_view bytes) : bytes_(bytes) {}
  [[nodiscard]] uint64_t size() const override { return bytes_.size(); }

 private:
  Status read_inside(uint64_t offset, std::span<std::byte> out) override;

  const std::string_view bytes_;
};

[[nodiscard]] inline std::string_view as_view(const std::vector<char>& bytes) {
  return {bytes.data(), bytes.size()};
}

/// The little-endian number at `position`. REQUIRES: it is inside `bytes`.
template <std::unsigned_integral T>
[[nodiscard]] T load_le(std::string_view bytes, size_t position) {
  T value = 0;
  for (size_t i = sizeof(T); i-- > 0;) {
    value = static_cast<T>(static_cast<uint64_t>(value) << 8 | static_cast<unsigned char>(bytes[position + i]));
  }
  return value;
}

}  // namespace qcache

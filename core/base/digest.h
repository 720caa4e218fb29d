#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace qcache {

using Sha256Digest = std::array<uint8_t, 32>;

/// Incremental SHA-256 (OpenSSL). Not thread-safe; one object per stream. After finish() it starts anew.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  void update(std::span<const std::byte> bytes);
  void update(std::string_view text);
  [[nodiscard]] Sha256Digest finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

[[nodiscard]] Sha256Digest sha256(std::span<const std::byte> bytes);
[[nodiscard]] std::string to_hex(std::span<const uint8_t> bytes);

/// Lower-case hexadecimal MD5 of a text. Names files only (it is what users of the earlier Python cache
/// know); SHA-256 guards content.
[[nodiscard]] std::string md5_hex(std::string_view text);

/// CRC-32 (the one of zip and gzip) of `bytes`, continuing from `crc` (0 at the start of a stream).
[[nodiscard]] uint32_t crc32(uint32_t crc, std::span<const std::byte> bytes);

/// The CRC-32 of A||B from those of A and B and the length of B in bytes.
[[nodiscard]] uint32_t crc32_combine(uint32_t crc_a, uint32_t crc_b, uint64_t length_b);

}  // namespace qcache

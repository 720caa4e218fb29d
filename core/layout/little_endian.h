#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <string>

namespace qcache {

/// Adds the bytes of `value`, lowest first.
template <std::unsigned_integral T>
void append_le(std::string& out, T value) {
  std::array<char, sizeof(T)> bytes{};
  for (size_t i = 0; i < sizeof(T); ++i) {
    bytes[i] = static_cast<char>(static_cast<unsigned char>(value >> (8 * i)));
  }
  out.append(bytes.data(), bytes.size());
}

}  // namespace qcache

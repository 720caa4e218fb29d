#pragma once

#include <cstdint>
#include <optional>

namespace qcache {

/// Arithmetic on sizes that come from files made by strangers: nothing where the result does not fit.
[[nodiscard]] inline std::optional<uint64_t> checked_add(uint64_t a, uint64_t b) {
  uint64_t out = 0;
  return __builtin_add_overflow(a, b, &out) ? std::nullopt : std::optional(out);
}
[[nodiscard]] inline std::optional<uint64_t> checked_mul(uint64_t a, uint64_t b) {
  uint64_t out = 0;
  return __builtin_mul_overflow(a, b, &out) ? std::nullopt : std::optional(out);
}

[[nodiscard]] constexpr uint64_t ceil_div(uint64_t value, uint64_t divisor) {
  return value / divisor + (value % divisor != 0 ? 1 : 0);
}
/// The next multiple of `alignment` at or above `value`.
[[nodiscard]] constexpr uint64_t round_up(uint64_t value, uint64_t alignment) {
  return ceil_div(value, alignment) * alignment;
}

}  // namespace qcache

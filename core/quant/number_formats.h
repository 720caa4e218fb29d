#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/model/dtype.h"

namespace qcache {

// The number formats that schemes read and write, one value at a time. All roundings are to nearest, ties to
// even; NaN stays NaN, keeps its sign and becomes quiet.

/// Exact.
[[nodiscard]] inline float bf16_to_float(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

/// Values beyond bf16's range become infinite.
[[nodiscard]] inline uint16_t float_to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) {
    return static_cast<uint16_t>((bits >> 16) | 0x0040);
  }
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/// Exact.
[[nodiscard]] inline float fp16_to_float(uint16_t bits) {
  const uint32_t sign = (bits & 0x8000U) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1f;
  const uint32_t fraction = bits & 0x3ffU;
  if (exponent == 0x1f) {
    return std::bit_cast<float>(sign | 0x7f800000 | (fraction << 13) | (fraction != 0 ? 0x00400000U : 0U));
  }
  if (exponent == 0) {
    const float magnitude = static_cast<float>(fraction) * 0x1p-24F;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
}

/// Values beyond fp16's range become infinite.
[[nodiscard]] inline uint16_t float_to_fp16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  if (std::isnan(value)) {
    return static_cast<uint16_t>(sign | 0x7e00 | ((magnitude >> 13) & 0x1ff));
  }
  if (magnitude >= 0x47800000) {  // 65536
    return static_cast<uint16_t>(sign | 0x7c00);
  }
  if (magnitude < 0x38800000) {  // 2^-14: a multiple of 2^-24
    const float steps = std::nearbyintf(std::bit_cast<float>(magnitude) * 0x1p24F);
    return static_cast<uint16_t>(sign | static_cast<uint32_t>(steps));
  }
  const uint32_t rebiased = magnitude - (112U << 23);
  return static_cast<uint16_t>(sign | ((rebiased + 0xfff + ((rebiased >> 13) & 1)) >> 13));
}

/// Largest finite float8_e4m3fn.
inline constexpr float kE4M3Max = 448.0F;

/// float8_e4m3fn; saturates to +-448, infinities too.
[[nodiscard]] inline uint8_t float_to_e4m3(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 24) & 0x80;
  if (std::isnan(value)) {
    return static_cast<uint8_t>(sign | 0x7f);
  }
  const float magnitude = std::fmin(std::fabs(value), kE4M3Max);
  if (magnitude < 0x1p-6F) {  // a multiple of 2^-9
    return static_cast<uint8_t>(sign | static_cast<uint32_t>(std::nearbyintf(magnitude * 0x1p9F)));
  }
  const uint32_t rebiased = std::bit_cast<uint32_t>(magnitude) - (120U << 23);
  return static_cast<uint8_t>(sign | ((rebiased + 0x7ffff + ((rebiased >> 20) & 1)) >> 20));
}

/// Exact.
[[nodiscard]] inline float e4m3_to_float(uint8_t bits) {
  const uint32_t sign = (bits & 0x80U) << 24;
  const uint32_t magnitude = bits & 0x7fU;
  if (magnitude == 0x7f) {
    return std::bit_cast<float>(sign | 0x7fc00000);
  }
  if (magnitude < 8) {
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(static_cast<float>(magnitude) * 0x1p-9F));
  }
  return std::bit_cast<float>(sign | ((magnitude << 20) + (120U << 23)));
}

/// The magnitudes of E2M1 (the 4-bit float of MXFP4 and NVFP4) by the lower three bits of its codes.
inline constexpr std::array<float, 8> kE2M1Values = {0.0F, 0.5F, 1.0F, 1.5F, 2.0F, 3.0F, 4.0F, 6.0F};

/// E2M1: the sign above three bits of magnitude. Saturates to +-6; NaN and -0 become 0.
[[nodiscard]] inline uint8_t float_to_e2m1(float value) {
  if (std::isnan(value)) {
    return 0;
  }
  const float magnitude = std::fmin(std::fabs(value), 6.0F);
  const float step = magnitude < 2 ? 0.5F : magnitude < 4 ? 1.0F : 2.0F;
  const uint32_t base = magnitude < 2 ? 0 : magnitude < 4 ? 2 : 4;
  const auto steps = static_cast<uint32_t>(std::nearbyintf(magnitude / step));
  return static_cast<uint8_t>((value < 0 ? 8U : 0U) | (base + steps));
}

/// Exact.
[[nodiscard]] inline float e2m1_to_float(uint8_t bits) {
  const float magnitude = kE2M1Values[bits & 7U];
  return (bits & 8U) != 0 ? -magnitude : magnitude;
}

/// Reads one value of a wide float type from any address; F64 is rounded to fp32.
[[nodiscard]] inline float load_as_float(DType dtype, const std::byte* from) {
  if (dtype == DType::kF64) {
    double value = 0;
    std::memcpy(&value, from, sizeof value);
    return static_cast<float>(value);
  }
  if (dtype == DType::kF32) {
    float value = 0;
    std::memcpy(&value, from, sizeof value);
    return value;
  }
  uint16_t bits = 0;
  std::memcpy(&bits, from, sizeof bits);
  return dtype == DType::kBF16 ? bf16_to_float(bits) : fp16_to_float(bits);
}

/// Rounds to BF16, F16 or F32 and writes to any address.
inline void store_from_float(DType dtype, float value, std::byte* to) {
  if (dtype == DType::kF32) {
    std::memcpy(to, &value, sizeof value);
    return;
  }
  const uint16_t bits = dtype == DType::kBF16 ? float_to_bf16(value) : float_to_fp16(value);
  std::memcpy(to, &bits, sizeof bits);
}

/// The nearest value that BF16, F16 or F32 can hold.
[[nodiscard]] inline float round_to(DType dtype, float value) {
  switch (dtype) {
    case DType::kBF16:
      return bf16_to_float(float_to_bf16(value));
    case DType::kF16:
      return fp16_to_float(float_to_fp16(value));
    default:
      return value;
  }
}

}  // namespace qcache

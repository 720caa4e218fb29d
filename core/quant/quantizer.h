#pragma once

#include <array>
#include <cstdint>

#include "core/model/dtype.h"

namespace qcache {

// What the scalar reference and the SIMD kernels share: constants, and the once-per-row arithmetic that
// decides a scale. docs/SCHEMES.md says where each comes from.

/// Elements per NF4 block.
inline constexpr uint64_t kNf4BlockElements = 64;

/// The values NF4's codes stand for.
inline constexpr std::array<float, 16> kNf4Values = {
    -1.0F,
    -0.6961928009986877F,
    -0.5250730514526367F,
    -0.39491748809814453F,
    -0.28444138169288635F,
    -0.18477343022823334F,
    -0.09105003625154495F,
    0.0F,
    0.07958029955625534F,
    0.16093020141124725F,
    0.24611230194568634F,
    0.33791524171829224F,
    0.44070982933044434F,
    0.5626170039176941F,
    0.7229568362236023F,
    1.0F,
};

/// The code of x is the number of these that are less than x: a tie takes the lower code. They are the midpoints of
/// neighbouring codes, computed in float as bitsandbytes does: nine lie halfway between two floats, and as decimals
/// four of those would round the other way.
inline constexpr std::array<float, 15> kNf4Thresholds = [] {
  std::array<float, 15> midpoints{};
  for (size_t i = 0; i < midpoints.size(); ++i) {
    midpoints[i] = (kNf4Values[i] + kNf4Values[i + 1]) / 2.0F;
  }
  return midpoints;
}();

/// The code of 0.
inline constexpr uint8_t kNf4Zero = 7;

/// What a block's values are multiplied with. The floor keeps it finite for blocks of zeros and of the
/// smallest denormals.
[[nodiscard]] inline float nf4_multiplier(float absmax) {
  return 1.0F / (absmax < 1e-38F ? 1e-38F : absmax);
}

/// The type of a row's scale: the weight's own, and F32 for F64.
[[nodiscard]] constexpr DType scale_dtype(DType weight) {
  return weight == DType::kF64 ? DType::kF32 : weight;
}

/// Scales as compressed-tensors makes them: amax / divisor rounded to `dtype`; where that is 0, the dtype's
/// epsilon.
[[nodiscard]] float int8_scale(DType dtype, float amax);
[[nodiscard]] float fp8_scale(DType dtype, float amax);

/// Scale as optimum-quanto makes it, but 0 is not replaced: rows of scale 0 are stored with scale 1 and
/// codes 0.
[[nodiscard]] float qfloat8_scale(DType dtype, float amax);

}  // namespace qcache

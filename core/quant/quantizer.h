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

/// The code of x is the number of these that are less than x: a tie takes the lower code.
inline constexpr std::array<float, 15> kNf4Thresholds = {
    -0.8480964004993439F,  -0.6106329262256622F,   -0.4599952697753906F, -0.33967943489551544F, -0.23460740596055984F,
    -0.13791173323988914F, -0.045525018125772476F, 0.03979014977812767F, 0.1202552504837513F,   0.2035212516784668F,
    0.2920137718319893F,   0.3893125355243683F,    0.5016634166240692F,  0.6427869200706482F,   0.8614784181118011F,
};

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

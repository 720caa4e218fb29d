#pragma once

#include <array>
#include <cstddef>
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

/// The same, for int4: amax / 7.5.
[[nodiscard]] float int4_scale(DType dtype, float amax);

/// Scale as optimum-quanto makes it for qint8, 0 not replaced either.
[[nodiscard]] float qint8_scale(DType dtype, float amax);

/// quanto's qint4: w' = scale * q - shift. `low` and `high` are the least and greatest finite value of the group.
struct Qint4Range {
  float scale = 0;  ///< 0: all codes are 0, and scale 1 is stored
  float shift = 0;
};
[[nodiscard]] Qint4Range qint4_range(DType dtype, float low, float high);
/// The code of a finite value; `scale` is not 0.
[[nodiscard]] uint8_t qint4_code(DType dtype, float value, const Qint4Range& range);

/// LLM.int8: the largest magnitude after the cast to F16, which saturates here.
[[nodiscard]] float llm_int8_scale(float amax);
/// The cast itself, for finite values.
[[nodiscard]] float llm_int8_value(float value);
/// What the cast values are multiplied with; `scale` is not 0.
[[nodiscard]] inline float llm_int8_multiplier(float scale) {
  return 1.0F / scale * 127.0F;  // as torch divides a number by a tensor
}

/// Rows and columns of the squares that share a scale in fp8-block.
inline constexpr uint64_t kFp8BlockSide = 128;
/// What a square's values are multiplied with. Finite; its reciprocal is stored.
[[nodiscard]] float fp8_block_multiplier(float amax);

/// bitsandbytes FP4, by code; code 8 stands for +0 too.
inline constexpr std::array<float, 16> kFp4Values = {
    0.0F, 0.0625F / 12,  8.0F / 12,  1.0F,  4.0F / 12,  6.0F / 12,  2.0F / 12,  3.0F / 12,
    0.0F, -0.0625F / 12, -8.0F / 12, -1.0F, -4.0F / 12, -6.0F / 12, -2.0F / 12, -3.0F / 12};
/// The magnitudes' codes in the order of their values, and the thresholds between them: a tie takes the smaller
/// magnitude. The thresholds are those of bitsandbytes' CUDA kernel.
inline constexpr std::array<uint8_t, 8> kFp4Ascending = {0, 1, 6, 7, 4, 5, 2, 3};
inline constexpr std::array<float, 7> kFp4Thresholds = {0.00260417F, 0.0859375F, 0.20833333F, 0.29166667F,
                                                        0.4166667F,  0.583333F,  0.8333333F};

/// Elements of an MXFP4 group, and the E8M0 byte of its scale 2^(byte - 127).
inline constexpr uint64_t kMxfp4GroupElements = 32;
[[nodiscard]] uint8_t mxfp4_exponent(float amax);
/// 1 / scale, exact.
[[nodiscard]] float mxfp4_multiplier(uint8_t exponent);

/// Elements of an NVFP4 group.
inline constexpr uint64_t kNvfp4GroupElements = 16;
/// The scale of a whole tensor, and the E4M3 byte of a group's scale in units of it.
[[nodiscard]] float nvfp4_global_scale(float tensor_amax);
[[nodiscard]] uint8_t nvfp4_group_scale(float global_scale, float group_amax);

/// nf4-dq: elements and blocks of 64 whose absmaxes share a nested absmax.
inline constexpr uint64_t kNestedBlocks = 256;
inline constexpr uint64_t kNestedElements = kNestedBlocks * kNf4BlockElements;
/// What the codes of absmaxes stand for: bitsandbytes' signed "dynamic map", ascending.
[[nodiscard]] const std::array<float, 256>& dynamic_map();
/// The nearest entry's code; a tie takes the lower one.
[[nodiscard]] uint8_t dynamic_code(float normalized);

}  // namespace qcache

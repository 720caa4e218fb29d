#include "core/quant/quantizer.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "core/quant/number_formats.h"

namespace qcache {
namespace {

float epsilon(DType dtype) {
  switch (dtype) {
    case DType::kBF16:
      return 0x1p-7F;
    case DType::kF16:
      return 0x1p-10F;
    default:
      return 0x1p-23F;
  }
}

float scale_or_epsilon(DType dtype, float exact) {
  const float scale = round_to(dtype, exact);
  return scale == 0 ? epsilon(dtype) : scale;
}

float largest_finite(DType dtype) {
  switch (dtype) {
    case DType::kBF16:
      return bf16_to_float(0x7f7f);
    case DType::kF16:
      return 65504.0F;
    default:
      return std::numeric_limits<float>::max();
  }
}

/// For each of seven decades up to 1, twice as many values as for the one before, in both signs; and 0 and 1.
std::array<float, 256> make_dynamic_map() {
  std::array<float, 256> map{};
  size_t filled = 0;
  constexpr std::array<float, 7> kDecades = {1e-6F, 1e-5F, 1e-4F, 1e-3F, 1e-2F, 1e-1F, 1.0F};
  for (size_t decade = 0; decade < kDecades.size(); ++decade) {
    // torch.linspace(0.1, 1, steps + 1), which goes by fp32 steps from the nearer end and rounds once.
    const size_t steps = size_t{1} << decade;
    const float step = (1.0F - 0.1F) / static_cast<float>(steps);
    const auto boundary = [&](size_t i) {
      return i < (steps + 1) / 2 ? std::fma(step, static_cast<float>(i), 0.1F)
                                 : std::fma(-step, static_cast<float>(steps - i), 1.0F);
    };
    for (size_t i = 0; i < steps; ++i) {
      const float value = kDecades[decade] * ((boundary(i) + boundary(i + 1)) / 2.0F);
      map[filled++] = value;
      map[filled++] = -value;
    }
  }
  map[filled++] = 0.0F;
  map[filled++] = 1.0F;
  std::sort(map.begin(), map.end());
  return map;
}

}  // namespace

float int8_scale(DType dtype, float amax) {
  return scale_or_epsilon(dtype, amax / 127.5F);
}

float fp8_scale(DType dtype, float amax) {
  return scale_or_epsilon(dtype, amax / kE4M3Max);
}

float qfloat8_scale(DType dtype, float amax) {
  return round_to(dtype, amax / kE4M3Max);
}

float int4_scale(DType dtype, float amax) {
  return scale_or_epsilon(dtype, amax / 7.5F);
}

float qint8_scale(DType dtype, float amax) {
  return round_to(dtype, amax / 127.0F);
}

Qint4Range qint4_range(DType dtype, float low, float high) {
  const float largest = largest_finite(dtype);
  const float range = std::fmin(round_to(dtype, high - low), largest);
  return {.scale = round_to(dtype, range / 15.0F), .shift = low == 0 ? -0.0F : -low};
}

uint8_t qint4_code(DType dtype, float value, const Qint4Range& range) {
  const float above_low = std::fmin(round_to(dtype, value + range.shift), largest_finite(dtype));
  const float steps = std::nearbyintf(round_to(dtype, above_low / range.scale));
  return static_cast<uint8_t>(std::fmin(steps, 15.0F));
}

float llm_int8_value(float value) {
  constexpr float kLargest = 65504.0F;
  return round_to(DType::kF16, std::fmax(std::fmin(value, kLargest), -kLargest));
}

float llm_int8_scale(float amax) {
  return llm_int8_value(amax);
}

// As torch divides a number by a tensor. So is nvfp4_global_scale().
float fp8_block_multiplier(float amax) {
  return amax == 0 ? 1.0F : std::fmin(1.0F / amax * kE4M3Max, std::numeric_limits<float>::max());
}

uint8_t mxfp4_exponent(float amax) {
  // From 1.75 on the power of two above: the largest code is 6 = 1.5 * 2^2.
  const auto bits = std::bit_cast<uint32_t>(amax);
  const uint32_t exponent = (bits >> 23) + ((bits & 0x7fffff) >= 0x600000 ? 1 : 0);
  return static_cast<uint8_t>(exponent < 2 ? 0 : exponent - 2);
}

float mxfp4_multiplier(uint8_t exponent) {
  return std::bit_cast<float>((254U - exponent) << 23);
}

float nvfp4_global_scale(float tensor_amax) {
  return tensor_amax == 0 ? 1.0F : std::fmin(1.0F / tensor_amax * (kE4M3Max * 6.0F), std::numeric_limits<float>::max());
}

uint8_t nvfp4_group_scale(float global_scale, float group_amax) {
  constexpr uint8_t kEighth = 0x20;
  const uint8_t scale = float_to_e4m3(global_scale * (group_amax / 6.0F));
  return scale == 0 ? kEighth : scale;
}

const std::array<float, 256>& dynamic_map() {
  static const std::array<float, 256> kMap = make_dynamic_map();
  return kMap;
}

uint8_t dynamic_code(float normalized) {
  static const std::array<float, 255> kBounds = [] {
    std::array<float, 255> bounds{};
    for (size_t i = 0; i < bounds.size(); ++i) {
      bounds[i] = (dynamic_map()[i] + dynamic_map()[i + 1]) / 2.0F;
    }
    return bounds;
  }();
  return static_cast<uint8_t>(std::lower_bound(kBounds.begin(), kBounds.end(), normalized) - kBounds.begin());
}

}  // namespace qcache

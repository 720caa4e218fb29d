#pragma once

#include <array>
#include <cmath>
#include <cstring>
#include <random>

#include "core/quant/number_formats.h"
#include "core/quant/quantizer.h"

// Kinds of rows, well-behaved ones and every kind that is not.
namespace qcache {

inline void store_any(DType dtype, float value, std::byte* to) {
  if (dtype == DType::kF64) {
    const auto wide = static_cast<double>(value);
    std::memcpy(to, &wide, sizeof wide);
  } else {
    store_from_float(dtype, value, to);
  }
}

/// Fills `count` elements with one kind of data.
using Fill = void (*)(std::mt19937& generator, DType dtype, std::byte* to, size_t count);

template <typename Value>
inline void fill_values(DType dtype, std::byte* to, size_t count, const Value& value) {
  for (size_t i = 0; i < count; ++i) {
    store_any(dtype, value(), to + i * item_bytes(dtype));
  }
}

inline void normal(std::mt19937& generator, DType dtype, std::byte* to, size_t count) {
  std::normal_distribution<float> values(0, 0.02F);
  fill_values(dtype, to, count, [&] { return values(generator); });
}

inline void any_bits(std::mt19937& generator, DType dtype, std::byte* to, size_t count) {
  for (size_t i = 0; i < count * item_bytes(dtype); ++i) {
    to[i] = static_cast<std::byte>(generator());
  }
}

inline void any_finite_bits(std::mt19937& generator, DType dtype, std::byte* to, size_t count) {
  any_bits(generator, dtype, to, count);
  for (size_t i = 0; i < count; ++i) {
    std::byte* element = to + i * item_bytes(dtype);
    if (!std::isfinite(load_as_float(dtype, element))) {
      store_any(dtype, -1.5F, element);
    }
  }
}

inline void mostly_finite(std::mt19937& generator, DType dtype, std::byte* to, size_t count) {
  normal(generator, dtype, to, count);
  const std::array<float, 4> odd = {INFINITY, -INFINITY, NAN, -NAN};
  store_any(dtype, odd[generator() % 4], to + generator() % count * item_bytes(dtype));
}

inline void zeros(std::mt19937& generator, DType dtype, std::byte* to, size_t count) {
  fill_values(dtype, to, count, [&] { return generator() % 2 == 0 ? 0.0F : -0.0F; });
}

inline void tiny(std::mt19937& generator, DType dtype, std::byte* to, size_t count) {
  // Around the smallest values of the type, where scales underflow.
  const float unit = dtype == DType::kF16 ? 0x1p-24F : dtype == DType::kBF16 ? 0x1p-133F : 0x1p-149F;
  const unsigned range = 1U << (generator() % 12);
  fill_values(dtype, to, count, [&] {
    return unit * static_cast<float>(static_cast<int>(generator() % (2 * range + 1)) - static_cast<int>(range));
  });
}

inline void outlier(std::mt19937& generator, DType dtype, std::byte* to, size_t count) {
  normal(generator, dtype, to, count);
  store_any(dtype, generator() % 2 == 0 ? 60000.0F : -3.0F, to + generator() % count * item_bytes(dtype));
}

inline void ties(std::mt19937& generator, DType dtype, std::byte* to, size_t count) {
  // With an amax of 127.5 or 448 the scales are 1: halves are int8's ties, and many are E4M3's.
  fill_values(dtype, to, count, [&] { return static_cast<float>(static_cast<int>(generator() % 256) - 128) / 2; });
  store_any(dtype, generator() % 2 == 0 ? 127.5F : 448.0F, to);
}

inline void thresholds(std::mt19937& generator, DType dtype, std::byte* to, size_t count) {
  // NF4's thresholds and their neighbours, for blocks whose absmax is a power of two.
  const float scale = std::ldexp(1.0F, static_cast<int>(generator() % 20) - 10);
  fill_values(dtype, to, count, [&] {
    const float threshold = kNf4Thresholds[generator() % kNf4Thresholds.size()];
    const std::array<float, 3> near = {threshold, std::nextafter(threshold, -2.0F), std::nextafter(threshold, 2.0F)};
    return scale * near[generator() % 3];
  });
  for (size_t i = 0; i < count; i += kNf4BlockElements) {
    store_any(dtype, -scale, to + i * item_bytes(dtype));
  }
}

inline void fp4_thresholds(std::mt19937& generator, DType dtype, std::byte* to, size_t count) {
  const float scale = std::ldexp(1.0F, static_cast<int>(generator() % 20) - 10);
  fill_values(dtype, to, count, [&] {
    const float threshold = kFp4Thresholds[generator() % kFp4Thresholds.size()];
    const std::array<float, 3> near = {threshold, std::nextafter(threshold, -2.0F), std::nextafter(threshold, 2.0F)};
    return (generator() % 2 == 0 ? scale : -scale) * near[generator() % 3];
  });
  for (size_t i = 0; i < count; i += kNf4BlockElements) {
    store_any(dtype, -scale, to + i * item_bytes(dtype));
  }
}

/// Multiples of 1 / `parts` up to +-`limit`, which the first value of every 16 is: scales of 4-bit formats become 1.
inline void steps_up_to(float limit, float parts, std::mt19937& generator, DType dtype, std::byte* to, size_t count) {
  const int most = static_cast<int>(limit * parts);
  size_t index = 0;
  fill_values(dtype, to, count, [&] {
    const int step = static_cast<int>(generator() % static_cast<unsigned>(2 * most + 1)) - most;
    return index++ % 16 == 0 ? limit : static_cast<float>(step) / parts;
  });
}

inline void int4_ties(std::mt19937& generator, DType dtype, std::byte* to, size_t count) {
  steps_up_to(7.5F, 2, generator, dtype, to, count);
}

inline void e2m1_ties(std::mt19937& generator, DType dtype, std::byte* to, size_t count) {
  steps_up_to(6, 4, generator, dtype, to, count);
}

struct Pattern {
  const char* name;
  Fill fill;
};
inline constexpr std::array kPatterns = {
    Pattern{"normal", normal},
    Pattern{"any bits", any_bits},
    Pattern{"any finite bits", any_finite_bits},
    Pattern{"one not finite", mostly_finite},
    Pattern{"zeros", zeros},
    Pattern{"tiny", tiny},
    Pattern{"outlier", outlier},
    Pattern{"ties", ties},
    Pattern{"NF4's thresholds", thresholds},
    Pattern{"FP4's thresholds", fp4_thresholds},
    Pattern{"int4's ties", int4_ties},
    Pattern{"E2M1's ties", e2m1_ties},
};

}  // namespace qcache

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "core/quant/number_formats.h"
#include "gmock/gmock.h"
#include "tests/quant/all_targets.h"
#include "tests/quant/kernel_table.h"

// The promise of core/quant/kernels.h: on every instruction set, for every input, the reference's bytes.
namespace qcache {
namespace {

void store_any(DType dtype, float value, std::byte* to) {
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
void fill_values(DType dtype, std::byte* to, size_t count, const Value& value) {
  for (size_t i = 0; i < count; ++i) {
    store_any(dtype, value(), to + i * item_bytes(dtype));
  }
}

void normal(std::mt19937& generator, DType dtype, std::byte* to, size_t count) {
  std::normal_distribution<float> values(0, 0.02F);
  fill_values(dtype, to, count, [&] { return values(generator); });
}

void any_bits(std::mt19937& generator, DType dtype, std::byte* to, size_t count) {
  for (size_t i = 0; i < count * item_bytes(dtype); ++i) {
    to[i] = static_cast<std::byte>(generator());
  }
}

void any_finite_bits(std::mt19937& generator, DType dtype, std::byte* to, size_t count) {
  any_bits(generator, dtype, to, count);
  for (size_t i = 0; i < count; ++i) {
    std::byte* element = to + i * item_bytes(dtype);
    if (!std::isfinite(load_as_float(dtype, element))) {
      store_any(dtype, -1.5F, element);
    }
  }
}

void mostly_finite(std::mt19937& generator, DType dtype, std::byte* to, size_t count) {
  normal(generator, dtype, to, count);
  const std::array<float, 4> odd = {INFINITY, -INFINITY, NAN, -NAN};
  store_any(dtype, odd[generator() % 4], to + generator() % count * item_bytes(dtype));
}

void zeros(std::mt19937& generator, DType dtype, std::byte* to, size_t count) {
  fill_values(dtype, to, count, [&] { return generator() % 2 == 0 ? 0.0F : -0.0F; });
}

void tiny(std::mt19937& generator, DType dtype, std::byte* to, size_t count) {
  // Around the smallest values of the type, where scales underflow.
  const float unit = dtype == DType::kF16 ? 0x1p-24F : dtype == DType::kBF16 ? 0x1p-133F : 0x1p-149F;
  const unsigned range = 1U << (generator() % 12);
  fill_values(dtype, to, count, [&] {
    return unit * static_cast<float>(static_cast<int>(generator() % (2 * range + 1)) - static_cast<int>(range));
  });
}

void outlier(std::mt19937& generator, DType dtype, std::byte* to, size_t count) {
  normal(generator, dtype, to, count);
  store_any(dtype, generator() % 2 == 0 ? 60000.0F : -3.0F, to + generator() % count * item_bytes(dtype));
}

void ties(std::mt19937& generator, DType dtype, std::byte* to, size_t count) {
  // With an amax of 127.5 or 448 the scales are 1: halves are int8's ties, and many are E4M3's.
  fill_values(dtype, to, count, [&] { return static_cast<float>(static_cast<int>(generator() % 256) - 128) / 2; });
  store_any(dtype, generator() % 2 == 0 ? 127.5F : 448.0F, to);
}

void thresholds(std::mt19937& generator, DType dtype, std::byte* to, size_t count) {
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

struct Pattern {
  const char* name;
  Fill fill;
};
constexpr std::array kPatterns = {
    Pattern{"normal", normal},
    Pattern{"any bits", any_bits},
    Pattern{"any finite bits", any_finite_bits},
    Pattern{"one not finite", mostly_finite},
    Pattern{"zeros", zeros},
    Pattern{"tiny", tiny},
    Pattern{"outlier", outlier},
    Pattern{"ties", ties},
    Pattern{"thresholds", thresholds},
};

/// Every stored byte, with the source and the codes at odd addresses. Guard bytes behind each buffer prove
/// that nothing else was written.
std::vector<std::byte> run(const RowKernel& kernel, EncodeFunction function, DType dtype, size_t columns,
                           const std::vector<std::byte>& source) {
  const size_t rows = source.size() / (columns * item_bytes(dtype));
  std::vector<std::byte> shifted(1);
  shifted.insert(shifted.end(), source.begin(), source.end());
  const size_t codes = rows * kernel.code_bytes(columns);
  const size_t scales = rows * kernel.scale_bytes(dtype, columns);
  std::vector<std::byte> out(1 + codes + 16 + scales + 16, std::byte{0xee});
  const std::array<std::span<std::byte>, 2> stored = {std::span(out).subspan(1, codes),
                                                      std::span(out).subspan(1 + codes + 16, scales)};
  function({.source_dtype = dtype, .row_elements = columns, .source = std::span(shifted).subspan(1), .stored = stored});
  return out;
}

void expect_reference_bytes(const RowKernel& kernel, size_t columns) {
  constexpr size_t kRowCount = 3;
  for (const DType dtype : kWideFloats) {
    for (const Pattern& pattern : kPatterns) {
      std::mt19937 generator(static_cast<unsigned>(columns));
      std::vector<std::byte> source(kRowCount * columns * item_bytes(dtype));
      for (size_t row = 0; row < kRowCount; ++row) {
        pattern.fill(generator, dtype, source.data() + row * columns * item_bytes(dtype), columns);
      }
      const auto expected = run(kernel, kernel.reference, dtype, columns, source);
      on_all_targets([&] {
        ASSERT_EQ(run(kernel, kernel.kernel, dtype, columns, source), expected)
            << kernel.name << " from " << torch_name(dtype) << ", " << columns << " columns of " << pattern.name;
      });
      if (testing::Test::HasFatalFailure()) {
        return;
      }
    }
  }
}

TEST(Kernels, StoreTheReferencesBytesForRowsOfAnyLength) {
  for (const RowKernel& kernel : kRowKernels) {
    for (size_t columns = 1; columns <= 130 && !kernel.blocks; ++columns) {
      expect_reference_bytes(kernel, columns);
    }
    for (const size_t columns : {64U, 128U, 192U, 320U, 1024U, 4096U}) {
      expect_reference_bytes(kernel, columns);
    }
  }
}

void append_bits(std::vector<std::byte>& bytes, uint32_t bits) {
  bytes.push_back(static_cast<std::byte>(bits));
  bytes.push_back(static_cast<std::byte>(bits >> 8));
}

/// Both signs of every 16-bit magnitude up to `amax`. Blocks of 64 each begin with `amax` itself, so that it
/// decides their scale.
std::vector<std::byte> all_values_up_to(uint32_t amax, bool blocks) {
  std::vector<std::byte> out;
  for (uint32_t magnitude = 0; magnitude <= amax; ++magnitude) {
    for (const uint32_t bits : {magnitude, magnitude | 0x8000}) {
      if (blocks && out.size() / 2 % kNf4BlockElements == 0) {
        append_bits(out, amax);
      }
      append_bits(out, bits);
    }
  }
  while (blocks && out.size() / 2 % kNf4BlockElements != 0) {
    append_bits(out, 0);
  }
  return out;
}

TEST(Kernels, StoreTheReferencesBytesForEvery16BitValue) {
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    const uint32_t infinity = dtype == DType::kBF16 ? 0x7f80 : 0x7c00;
    for (uint32_t amax = 1; amax < infinity; amax += infinity / 24 + 1) {
      for (const RowKernel& kernel : kRowKernels) {
        const std::vector<std::byte> source = all_values_up_to(amax, kernel.blocks);
        const size_t columns = source.size() / 2;
        const auto expected = run(kernel, kernel.reference, dtype, columns, source);
        on_all_targets([&] {
          EXPECT_TRUE(run(kernel, kernel.kernel, dtype, columns, source) == expected)
              << kernel.name << " from " << torch_name(dtype) << ", amax bits " << amax;
        });
      }
    }
  }
}

std::vector<std::byte> run_cast(const CastKernel& cast, EncodeFunction function, DType from,
                                const std::vector<std::byte>& source) {
  const size_t count = source.size() / item_bytes(from);
  std::vector<std::byte> shifted(1);
  shifted.insert(shifted.end(), source.begin(), source.end());
  const size_t bytes = count * item_bytes(cast.target);
  std::vector<std::byte> out(1 + bytes + 16, std::byte{0xee});
  const std::array<std::span<std::byte>, 1> stored = {std::span(out).subspan(1, bytes)};
  function({.source_dtype = from, .row_elements = count, .source = std::span(shifted).subspan(1), .stored = stored});
  return out;
}

void expect_reference_cast(DType from, const std::vector<std::byte>& source) {
  for (const CastKernel& cast : kCastKernels) {
    const auto expected = run_cast(cast, cast.reference, from, source);
    on_all_targets([&] {
      EXPECT_TRUE(run_cast(cast, cast.kernel, from, source) == expected)
          << torch_name(from) << " to " << torch_name(cast.target) << ", " << source.size() / item_bytes(from)
          << " elements";
    });
  }
}

TEST(Kernels, CastEvery16BitValueAsTheReferenceDoes) {
  std::vector<std::byte> source;
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    source.push_back(static_cast<std::byte>(bits));
    source.push_back(static_cast<std::byte>(bits >> 8));
  }
  expect_reference_cast(DType::kBF16, source);
  expect_reference_cast(DType::kF16, source);
}

TEST(Kernels, CastFp32AroundEveryRoundingBoundaryAsTheReferenceDoes) {
  // Above and below each 16-bit value, its neighbours in fp32 and the ties between two of them.
  std::vector<std::byte> source;
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const auto half = std::bit_cast<uint32_t>(fp16_to_float(static_cast<uint16_t>(bits)));
    for (const uint32_t around : {half + 0xfff, half + 0x1000, half + 0x1001, (bits << 16) + 0x7fff,
                                  (bits << 16) + 0x8000, (bits << 16) + 0x8001}) {
      source.resize(source.size() + sizeof around);
      std::memcpy(source.data() + source.size() - sizeof around, &around, sizeof around);
    }
  }
  expect_reference_cast(DType::kF32, source);
}

TEST(Kernels, CastAnyNumberOfElements) {
  std::mt19937 generator(5);
  for (size_t count = 0; count <= 130; ++count) {
    for (const DType from : kWideFloats) {
      std::vector<std::byte> source(count * item_bytes(from));
      any_bits(generator, from, source.data(), count);
      expect_reference_cast(from, source);
    }
  }
}

TEST(Kernels, RunOnMoreThanOneInstructionSetHere) {
  // The tests above would prove nothing if every pass ran the same code.
  std::vector<size_t> chosen;
  on_all_targets([&] { chosen.push_back(hwy::GetChosenTarget().GetIndex()); });
  std::sort(chosen.begin(), chosen.end());
  EXPECT_EQ(std::unique(chosen.begin(), chosen.end()), chosen.end());
#if defined(__x86_64__)
  EXPECT_GE(chosen.size(), 2U);
#endif
}

// torch.bucketize's boundaries in bitsandbytes 0.50, as bits: nine of the midpoints lie halfway between two floats.
TEST(Nf4, ThresholdsAreThoseOfBitsandbytes) {
  constexpr std::array<uint32_t, 15> kBits = {0xBF591CD8, 0xBF1C5270, 0xBEEB8480, 0xBEADEA76, 0xBE703CEC,
                                              0xBE0D38BC, 0xBD3A7871, 0x3D22FAFF, 0x3DF64862, 0x3E5067E0,
                                              0x3E9582D4, 0x3EC753F9, 0x3F006D04, 0x3F248DAF, 0x3F5C89DA};
  for (size_t i = 0; i < kBits.size(); ++i) {
    EXPECT_EQ(std::bit_cast<uint32_t>(kNf4Thresholds[i]), kBits[i]) << i;
  }
}

}  // namespace
}  // namespace qcache

#include <cstring>
#include <vector>

#include "core/quant/number_formats.h"
#include "gmock/gmock.h"
#include "tests/quant/all_targets.h"
#include "tests/quant/encode_tensor.h"
#include "tests/quant/kernel_table.h"
#include "tests/quant/patterns.h"

// The promise of core/quant/kernels.h: on every instruction set, for every input, the reference's bytes.
namespace qcache {
namespace {

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
  kernel.run(function, dtype, columns, std::span(shifted).subspan(1), std::span(out).subspan(1, codes),
             std::span(out).subspan(1 + codes + 16, scales));
  return out;
}

std::vector<std::byte> filled(const Pattern& pattern, DType dtype, size_t rows, size_t columns) {
  std::mt19937 generator(static_cast<unsigned>(columns));
  std::vector<std::byte> source(rows * columns * item_bytes(dtype));
  for (size_t row = 0; row < rows; ++row) {
    pattern.fill(generator, dtype, source.data() + row * columns * item_bytes(dtype), columns);
  }
  return source;
}

void expect_reference_bytes(const RowKernel& kernel, size_t columns) {
  for (const DType dtype : kWideFloats) {
    for (const Pattern& pattern : kPatterns) {
      const std::vector<std::byte> source = filled(pattern, dtype, 3, columns);
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
    for (size_t columns = kernel.row_multiple(); columns <= 320; columns += kernel.row_multiple()) {
      expect_reference_bytes(kernel, columns);
      if (columns == 130) {
        break;
      }
    }
    expect_reference_bytes(kernel, 1024);
    expect_reference_bytes(kernel, 4096);
  }
}

TEST(Kernels, StoreTheReferencesBytesForUnitsThatAreNoRows) {
  for (const UnitKernel& kernel : kUnitKernels) {
    for (const Shape& shape : {Shape{128, 128}, Shape{256, 384}, Shape{32, 64}, Shape{32, 1088}, Shape{17, 384},
                               Shape{17, 100}, Shape{19, 135}, Shape{16, 160}}) {
      for (const DType dtype : kWideFloats) {
        const TensorInfo tensor = tensor_of("layers.0.q_proj.weight", dtype, shape);
        const Encoding encoding = encoding_alone(*find_scheme(kernel.name), tensor);
        if (!encoding.quantized) {
          continue;
        }
        Encoding plain = encoding;
        plain.encode = kernel.reference;
        for (const Pattern& pattern : kPatterns) {
          const std::vector<std::byte> source = filled(pattern, dtype, shape[0], shape[1]);
          const auto expected = encode_tensor(plain, source);
          on_all_targets([&] {
            ASSERT_TRUE(encode_tensor(encoding, source, 3) == expected)
                << kernel.name << " from " << torch_name(dtype) << ", " << shape[0] << " by " << shape[1] << " of "
                << pattern.name;
          });
          if (testing::Test::HasFatalFailure()) {
            return;
          }
        }
      }
    }
  }
}

TEST(Kernels, SurveyWhatTheReferenceDoes) {
  for (const DType dtype : kWideFloats) {
    for (const Pattern& pattern : kPatterns) {
      const std::vector<std::byte> source = filled(pattern, dtype, 1, 1088);
      Survey amax;
      Survey mean;
      reference::survey_amax(dtype, source, amax);
      reference::survey_absmax_mean(dtype, source, mean);
      on_all_targets([&] {
        Survey found;
        kernels::survey_amax(dtype, source, found);
        EXPECT_EQ(found.amax, amax.amax) << pattern.name;
        kernels::survey_absmax_mean(dtype, source, found);
        EXPECT_EQ(found.sum, mean.sum) << pattern.name;
        EXPECT_EQ(found.count, 17U);
      });
    }
  }
}

void append_bits(std::vector<std::byte>& bytes, uint32_t bits) {
  bytes.push_back(static_cast<std::byte>(bits));
  bytes.push_back(static_cast<std::byte>(bits >> 8));
}

/// Both signs of every 16-bit magnitude up to `amax`. Groups each begin with `amax` itself, so that it decides their
/// scale.
std::vector<std::byte> all_values_up_to(uint32_t amax, uint64_t group) {
  std::vector<std::byte> out;
  for (uint32_t magnitude = 0; magnitude <= amax; ++magnitude) {
    for (const uint32_t bits : {magnitude, magnitude | 0x8000}) {
      if (group != 0 && out.size() / 2 % group == 0) {
        append_bits(out, amax);
      }
      append_bits(out, bits);
    }
  }
  while (group != 0 && out.size() / 2 % group != 0) {
    append_bits(out, 0);
  }
  return out;
}

TEST(Kernels, StoreTheReferencesBytesForEvery16BitValue) {
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    const uint32_t infinity = dtype == DType::kBF16 ? 0x7f80 : 0x7c00;
    for (uint32_t amax = 1; amax < infinity; amax += infinity / 24 + 1) {
      for (const RowKernel& kernel : kRowKernels) {
        const std::vector<std::byte> source = all_values_up_to(amax, kernel.group);
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
  std::vector<SimdTarget> chosen;
  on_all_targets([&] { chosen.push_back(simd_target()); });
  EXPECT_EQ(simd_target(), chosen.front()) << "the best of them";
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

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "core/quant/number_formats.h"
#include "core/quant/scheme.h"
#include "gmock/gmock.h"
#include "tests/quant/encode_tensor.h"

// The error figures of docs/SCHEMES.md, from decoding what is stored the way the loaders do.
namespace qcache {
namespace {

constexpr uint64_t kRows = 512;
constexpr uint64_t kColumns = 4096;

float e4m3_value(uint8_t code) {
  const int exponent = (code >> 3) & 15;
  const auto fraction = static_cast<float>(code & 7);
  const float magnitude = exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, exponent - 10);
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}

float load_f32(const std::byte* from) {
  return load_as_float(DType::kF32, from);
}

/// Element `index`, decoded from stored tensors 0 and 1.
using Decode = float (*)(const std::vector<std::vector<std::byte>>& stored, DType scale, uint64_t index);

float decode_int8(const std::vector<std::vector<std::byte>>& stored, DType scale, uint64_t index) {
  return static_cast<float>(static_cast<int8_t>(stored[0][index])) *
         load_as_float(scale, &stored[1][index / kColumns * item_bytes(scale)]);
}
float decode_e4m3(const std::vector<std::vector<std::byte>>& stored, DType scale, uint64_t index) {
  return e4m3_value(std::to_integer<uint8_t>(stored[0][index])) *
         load_as_float(scale, &stored[1][index / kColumns * item_bytes(scale)]);
}
float decode_nf4(const std::vector<std::vector<std::byte>>& stored, DType /*scale*/, uint64_t index) {
  const auto both = std::to_integer<uint8_t>(stored[0][index / 2]);
  const size_t code = index % 2 == 0 ? both >> 4 : both & 15;
  return load_f32(&stored[2][code * sizeof(float)]) * load_f32(&stored[1][index / 64 * sizeof(float)]);
}

struct Claim {
  const char* scheme;
  DType source;
  Decode decode;
  double sqnr_db;  ///< +-0.1
  /// Largest error, relative to the row's (nf4: block's) amax, or for E4M3 to the larger of the value and
  /// amax / 448 * 2^-6 (where its steps become constant).
  double max_error;
};

class Quality : public testing::TestWithParam<Claim> {};

TEST_P(Quality, IsAsDocumented) {
  const Claim& claim = GetParam();
  std::mt19937 generator(11);
  std::normal_distribution<float> normal(0, 0.02F);
  std::vector<std::byte> source(kRows * kColumns * item_bytes(claim.source));
  for (uint64_t i = 0; i < kRows * kColumns; ++i) {
    store_from_float(claim.source, normal(generator), source.data() + i * item_bytes(claim.source));
  }
  const Encoding encoding =
      find_scheme(claim.scheme)->encoding({}, {}, tensor_of("layers.0.q_proj.weight", claim.source, {kRows, kColumns}));
  ASSERT_TRUE(encoding.quantized);
  const auto stored = encode_tensor(encoding, source);

  const bool floating = claim.decode == decode_e4m3;
  const uint64_t group = claim.decode == decode_nf4 ? 64 : kColumns;
  double signal = 0;
  double noise = 0;
  double worst = 0;
  for (uint64_t first = 0; first < kRows * kColumns; first += group) {
    double amax = 0;
    for (uint64_t i = first; i < first + group; ++i) {
      const double value = load_as_float(claim.source, &source[i * item_bytes(claim.source)]);
      amax = std::max(amax, std::fabs(value));
    }
    for (uint64_t i = first; i < first + group; ++i) {
      const double value = load_as_float(claim.source, &source[i * item_bytes(claim.source)]);
      const double error = std::fabs(claim.decode(stored, claim.source, i) - value);
      signal += value * value;
      noise += error * error;
      const double base = floating ? std::max(std::fabs(value), amax / 448 * 0x1p-6) : amax;
      worst = std::max(worst, error / base);
    }
  }
  EXPECT_NEAR(10 * std::log10(signal / noise), claim.sqnr_db, 0.1);
  EXPECT_LE(worst, claim.max_error);
}

INSTANTIATE_TEST_SUITE_P(Schemes, Quality,
                         testing::Values(Claim{"int8", DType::kF32, decode_int8, 41.2, 1 / 255.0 + 1e-5},
                                         Claim{"int8", DType::kBF16, decode_int8, 41.2, 1 / 127.0},
                                         Claim{"fp8", DType::kF32, decode_e4m3, 31.54, 1 / 16.0 + 1e-5},
                                         Claim{"fp8", DType::kBF16, decode_e4m3, 31.54, 1 / 16.0 + 1e-5},
                                         Claim{"nf4", DType::kF32, decode_nf4, 20.73, 0.152},
                                         Claim{"nf4", DType::kBF16, decode_nf4, 20.73, 0.152},
                                         Claim{"qfloat8", DType::kF32, decode_e4m3, 31.54, 1 / 16.0 + 1e-5},
                                         Claim{"qfloat8", DType::kBF16, decode_e4m3, 31.47, 1 / 16.0 + 1 / 256.0}),
                         [](const testing::TestParamInfo<Claim>& claim) {
                           return std::string(claim.param.scheme) + "_from_" +
                                  std::string(torch_name(claim.param.source));
                         });

}  // namespace
}  // namespace qcache

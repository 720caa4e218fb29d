#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "core/quant/number_formats.h"
#include "core/quant/scheme.h"
#include "gmock/gmock.h"
#include "tests/quant/encode_tensor.h"

// The error figures of docs/SCHEMES.md.
namespace qcache {
namespace {

constexpr uint64_t kRows = 1024;
constexpr uint64_t kColumns = 4096;

struct Claim {
  const char* scheme;
  DType source;
  uint64_t group;  ///< elements whose amax the largest error is relative to; where it is a choice, those of a scale
  bool floating;
  double sqnr_db;  ///< +-0.1
  /// Largest error, relative to the group's amax, or for E4M3 to the larger of the value and amax / 448 * 2^-6 (where
  /// its steps become constant).
  double max_error;
  DType arithmetic = DType::kF32;  ///< what the loader rounds w' to
};

/// How the scheme stores a matrix in a model that has another one, whose rows leave groups of `group` as the largest.
Encoding encoding_in_groups(const Scheme& scheme, DType dtype, uint64_t group) {
  SourceModel model;
  model.tensors = {tensor_of("layers.0.q_proj.weight", dtype, {kRows, kColumns}),
                   tensor_of("layers.0.k_proj.weight", dtype, {32, kColumns + group % kColumns})};
  return scheme.encoding(model, scheme.choose(model), model.tensors[0]);
}

class Quality : public testing::TestWithParam<Claim> {};

TEST_P(Quality, IsAsDocumented) {
  const Claim& claim = GetParam();
  std::mt19937 generator(11);
  std::normal_distribution<float> normal(0, 0.02F);
  std::vector<std::byte> source(kRows * kColumns * item_bytes(claim.source));
  for (uint64_t i = 0; i < kRows * kColumns; ++i) {
    store_from_float(claim.source, normal(generator), source.data() + i * item_bytes(claim.source));
  }
  const Encoding encoding = encoding_in_groups(*find_scheme(claim.scheme), claim.source, claim.group);
  ASSERT_TRUE(encoding.quantized);
  if (encoding.group_elements != 0) {
    ASSERT_EQ(encoding.group_elements, claim.group);
  }
  auto decoded = decode_tensor(encoding, encode_tensor(encoding, source), survey_of(encoding, source));
  for (float& value : decoded) {
    value = round_to(claim.arithmetic, value);
  }

  double signal = 0;
  double noise = 0;
  double worst = 0;
  for (uint64_t first = 0; first < kRows * kColumns; first += claim.group) {
    double amax = 0;
    for (uint64_t i = first; i < first + claim.group; ++i) {
      const double value = load_as_float(claim.source, &source[i * item_bytes(claim.source)]);
      amax = std::max(amax, std::fabs(value));
    }
    for (uint64_t i = first; i < first + claim.group; ++i) {
      const double value = load_as_float(claim.source, &source[i * item_bytes(claim.source)]);
      const double error = std::fabs(decoded[i] - value);
      signal += value * value;
      noise += error * error;
      const double base = claim.floating ? std::max(std::fabs(value), amax / 448 * 0x1p-6) : amax;
      worst = std::max(worst, error / base);
    }
  }
  EXPECT_NEAR(10 * std::log10(signal / noise), claim.sqnr_db, 0.1);
  EXPECT_LE(worst, claim.max_error);
}

constexpr uint64_t kRow = kColumns;
constexpr uint64_t kTensor = kRows * kColumns;

INSTANTIATE_TEST_SUITE_P(
    Schemes, Quality,
    testing::Values(
        Claim{"int8", DType::kF32, kRow, false, 41.2, 1 / 255.0 + 1e-5},
        Claim{"int8", DType::kBF16, kRow, false, 41.2, 1 / 127.0},
        Claim{"fp8", DType::kF32, kRow, true, 31.54, 1 / 16.0 + 1e-5},
        Claim{"fp8", DType::kBF16, kRow, true, 31.54, 1 / 16.0 + 1e-5},
        Claim{"int4", DType::kF32, 128, false, 19.11, 1 / 15.0 + 1e-5},
        Claim{"int4", DType::kBF16, 128, false, 19.11, 1 / 14.0},
        Claim{"int4", DType::kF32, 64, false, 19.76, 1 / 15.0 + 1e-5},
        Claim{"int4", DType::kF32, 32, false, 20.47, 1 / 15.0 + 1e-5},
        Claim{"nf4", DType::kF32, 64, false, 20.73, 0.152}, Claim{"nf4", DType::kBF16, 64, false, 20.73, 0.152},
        Claim{"qfloat8", DType::kF32, kRow, true, 31.54, 1 / 16.0 + 1e-5},
        Claim{"qfloat8", DType::kBF16, kRow, true, 31.47, 1 / 16.0 + 1 / 256.0},
        Claim{"qint8", DType::kF32, kRow, false, 41.2, 1 / 254.0 + 1e-5},
        Claim{"qint8", DType::kBF16, kRow, false, 40.8, 1 / 127.0},
        Claim{"qint8", DType::kBF16, kRow, false, 40.6, 1 / 100.0, DType::kBF16},
        Claim{"qfloat8", DType::kBF16, kRow, true, 31.47, 1 / 16.0 + 1 / 128.0, DType::kBF16},
        Claim{"qint4", DType::kF32, 128, false, 19.97, 2 / 30.0 + 1e-5},
        Claim{"qint4", DType::kBF16, 128, false, 19.97, 2 / 30.0 + 1 / 64.0},
        Claim{"fp8-block", DType::kF32, kTensor, true, 31.54, 1 / 16.0 + 1e-5},
        Claim{"fp8-block", DType::kBF16, kTensor, true, 31.54, 1 / 16.0 + 1e-5},
        Claim{"int8-bnb", DType::kF32, kRow, false, 41.2, 1 / 254.0 + 1 / 2048.0},
        Claim{"int8-bnb", DType::kBF16, kRow, false, 41.2, 1 / 254.0 + 1e-5},
        Claim{"nf4-dq", DType::kF32, 64, false, 20.72, 0.17}, Claim{"nf4-dq", DType::kBF16, 64, false, 20.72, 0.17},
        Claim{"fp4", DType::kF32, 64, false, 18.28, 1 / 6.0 + 1e-5},
        Claim{"fp4", DType::kBF16, 64, false, 18.28, 1 / 6.0 + 1e-5},
        Claim{"w8a16", DType::kF32, 128, false, 43.7, 1 / 255.0 + 1e-5},
        Claim{"w8a16", DType::kBF16, 128, false, 43.7, 1 / 127.0}, Claim{"nvfp4", DType::kF32, 16, false, 20.43, 0.23},
        Claim{"nvfp4", DType::kBF16, 16, false, 20.43, 0.23}, Claim{"mxfp4", DType::kF32, 32, false, 19.0, 0.25},
        Claim{"mxfp4", DType::kBF16, 32, false, 19.0, 0.25}),
    [](const testing::TestParamInfo<Claim>& claim) {
      std::string name = std::string(claim.param.scheme) + "_from_" + std::string(torch_name(claim.param.source));
      if (claim.param.arithmetic != DType::kF32) {
        name += "_in_" + std::string(torch_name(claim.param.arithmetic));
      }
      if (claim.param.group < 128 && name.starts_with("int4")) {
        name += "_g" + std::to_string(claim.param.group);
      }
      std::replace(name.begin(), name.end(), '-', '_');
      return name;
    });

TEST(Decode, RestoresValuesOfOddShapesNearly) {
  // Odd numbers of groups and units that end early; the error is bounded by a quarter of the largest magnitude.
  std::mt19937 generator(2);
  std::normal_distribution<float> normal(0, 1);
  for (const Shape& shape : {Shape{17, 384}, Shape{128, 384}, Shape{32, 1088}}) {
    const TensorInfo tensor = tensor_of("layers.0.q_proj.weight", DType::kF16, shape);
    std::vector<std::byte> source(tensor.data.size);
    float amax = 0;
    for (uint64_t i = 0; i < tensor.element_count(); ++i) {
      const float value = normal(generator);
      amax = std::max(amax, std::fabs(value));
      store_from_float(DType::kF16, value, source.data() + 2 * i);
    }
    for (const Scheme* scheme : all_schemes()) {
      const Encoding encoding = encoding_alone(*scheme, tensor);
      EXPECT_EQ(encoding.decode != nullptr, encoding.quantized) << scheme->name();
      if (!encoding.quantized) {
        continue;
      }
      const auto values = decode_tensor(encoding, encode_tensor(encoding, source), survey_of(encoding, source));
      for (uint64_t i = 0; i < values.size(); ++i) {
        ASSERT_NEAR(values[i], load_as_float(DType::kF16, source.data() + 2 * i), amax / 4) << scheme->name() << i;
      }
    }
  }
}

}  // namespace
}  // namespace qcache

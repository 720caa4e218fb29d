#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "core/quant/number_formats.h"
#include "gmock/gmock.h"
#include "tests/quant/all_targets.h"
#include "tests/quant/encode_tensor.h"
#include "tests/quant/kernel_table.h"

// tests/golden/quant_golden.txt, which says how it is written.
namespace qcache {
namespace {

std::vector<std::string> golden_lines() {
  std::ifstream file(QCACHE_GOLDEN_DIR "/quant_golden.txt");
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    line = line.substr(0, line.find('#'));
    if (line.find_first_not_of(' ') != std::string::npos) {
      lines.push_back(line);
    }
  }
  return lines;
}

std::string hex(const std::vector<std::byte>& bytes) {
  static constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out;
  for (const std::byte byte : bytes) {
    out += kDigits[std::to_integer<size_t>(byte) >> 4];
    out += kDigits[std::to_integer<size_t>(byte) & 15];
  }
  return out;
}

struct GoldenRow {
  std::string scheme;
  DType dtype = DType::kF32;
  std::vector<float> values;
  std::string codes;
  std::string scales;
};

GoldenRow parse_row(const std::string& line) {
  static const std::map<std::string, DType> kDtypes = {
      {"bf16", DType::kBF16}, {"fp16", DType::kF16}, {"fp32", DType::kF32}};
  GoldenRow row;
  std::istringstream in(line);
  std::string word;
  in >> row.scheme >> word;
  row.dtype = kDtypes.at(word);
  in >> word;
  EXPECT_EQ(word, ":");
  while (in >> word && word != "->") {
    row.values.push_back(std::strtof(word.c_str(), nullptr));
  }
  in >> row.codes >> word >> row.scales;
  return row;
}

std::string encoded(const GoldenRow& row, const RowKernel& kernel, EncodeFunction function) {
  std::vector<std::byte> source(row.values.size() * item_bytes(row.dtype));
  for (size_t i = 0; i < row.values.size(); ++i) {
    store_from_float(row.dtype, row.values[i], source.data() + i * item_bytes(row.dtype));
  }
  std::vector<std::byte> codes(kernel.code_bytes(row.values.size()));
  std::vector<std::byte> scales(kernel.scale_bytes(row.dtype, row.values.size()));
  kernel.run(function, row.dtype, row.values.size(), source, codes, scales);
  return hex(codes) + " / " + hex(scales);
}

TEST(QuantGolden, KernelsStoreTheKnownBytesOnEveryInstructionSet) {
  size_t checked = 0;
  for (const std::string& line : golden_lines()) {
    if (line.starts_with("number ")) {
      continue;
    }
    SCOPED_TRACE(line);
    const GoldenRow row = parse_row(line);
    for (const RowKernel& kernel : kRowKernels) {
      // Of kernels for several sizes of groups, the one for a single group of this size.
      if (kernel.name != row.scheme || (kernel.group_argument && kernel.group != row.values.size())) {
        continue;
      }
      const std::string expected = row.codes + " / " + row.scales;
      EXPECT_EQ(encoded(row, kernel, kernel.reference), expected) << "by the reference";
      on_all_targets([&] { EXPECT_EQ(encoded(row, kernel, kernel.kernel), expected); });
      ++checked;
    }
  }
  EXPECT_GE(checked, 40U);
}

/// The stored tensors of a matrix of these values, in hexadecimal.
std::vector<std::string> stored_for(std::string_view scheme, DType dtype, Shape shape,
                                    const std::vector<float>& values) {
  std::vector<std::byte> source(values.size() * item_bytes(dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    store_from_float(dtype, values[i], source.data() + i * item_bytes(dtype));
  }
  const TensorInfo tensor = tensor_of("layers.0.q_proj.weight", dtype, std::move(shape));
  std::vector<std::string> out;
  on_all_targets([&] {
    out.clear();
    for (const auto& bytes : encode_tensor(encoding_alone(*find_scheme(scheme), tensor), source)) {
      out.push_back(hex(bytes));
    }
  });
  return out;
}

TEST(QuantGolden, Fp8BlockStoresReciprocalScales) {
  std::vector<float> values(128 * 128);
  values[0] = 2;
  values[1] = -1;
  values[128] = 0.3F;
  const auto stored = stored_for("fp8-block", DType::kF32, {128, 128}, values);
  EXPECT_EQ(stored.at(0).substr(0, 6), "7ef600");
  EXPECT_EQ(stored.at(0).substr(256, 4), "6800");
  EXPECT_EQ(stored.at(1), "2549923b");
  // A square of zeros, and what is not finite.
  values.assign(values.size(), 0);
  EXPECT_EQ(stored_for("fp8-block", DType::kF32, {128, 128}, values).at(1), "0000803f");
  values[5] = INFINITY;
  values[6] = -INFINITY;
  values[7] = NAN;
  values[8] = 448;
  EXPECT_EQ(stored_for("fp8-block", DType::kF32, {128, 128}, values).at(0).substr(10, 8), "7efe7f7e");
}

TEST(QuantGolden, Qint4PacksTheTwoHalvesOfTheGroups) {
  // The values of 16 rows of 256, of which the first 512 elements are known.
  std::vector<float> values(16 * 256);
  for (size_t k = 0; k < values.size(); ++k) {
    values[k] = (static_cast<float>(k % 512) - 255.5F) / 256;
  }
  const auto stored = stored_for("qint4", DType::kBF16, {16, 256}, values);
  EXPECT_EQ(stored.at(1).substr(0, 16), "093d073d073d093d");
  EXPECT_EQ(stored.at(2).substr(0, 16), "803fff3e00bb00bf");
  // Groups 0 and 16 are alike, so both halves of each byte are.
  EXPECT_EQ(stored.at(0).substr(0, 32), "00000000001111111111111111222222");
}

TEST(QuantGolden, Qint4RestoresConstantGroupsAndDefinesWhatIsNotFinite) {
  std::vector<float> values(16 * 16, 0.375F);
  for (size_t i = 0; i < 16; ++i) {
    values[i] = 0;
  }
  values[16 * 8] = INFINITY;
  values[16 * 8 + 1] = -INFINITY;
  values[16 * 8 + 2] = NAN;
  const auto stored = stored_for("qint4", DType::kBF16, {16, 16}, values);
  EXPECT_EQ(stored.at(0).substr(0, 32), "f0000000000000000000000000000000");  // rows 0 and 8
  EXPECT_EQ(stored.at(1).substr(0, 8), "803f803f");                           // scale 1
  EXPECT_EQ(stored.at(2).substr(0, 8), "0080c0be");                           // -0, -0.375
}

TEST(QuantGolden, Nf4DqStoresCodesOfAbsmaxes) {
  // Half of the 64 blocks have absmax 1, half 3: the mean is 2, and the differences are the extremes of the map.
  std::vector<float> values(32 * 128);
  for (size_t i = 0; i < values.size(); i += 64) {
    values[i] = i / 64 % 2 == 0 ? 1 : -3;
  }
  const auto stored = stored_for("nf4-dq", DType::kF32, {32, 128}, values);
  EXPECT_EQ(stored.at(0).substr(0, 8), "f7777777");
  EXPECT_EQ(stored.at(0).substr(64, 8), "07777777");
  EXPECT_EQ(stored.at(1).substr(0, 8), "00ff00ff");
  EXPECT_EQ(stored.at(2), "0000803f");
  std::string state;
  for (size_t i = 0; i < stored.at(5).size(); i += 2) {
    state += static_cast<char>(std::stoi(stored.at(5).substr(i, 2), nullptr, 16));
  }
  EXPECT_EQ(state, R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [32, 128], )"
                   R"("nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 2}                       )");
}

TEST(QuantGolden, Nvfp4StoresOneScalePerTensor) {
  std::vector<float> values(16 * 16);
  values[0] = 0.8F;
  EXPECT_EQ(stored_for("nvfp4", DType::kF32, {16, 16}, values).at(2), "00005245");
  values[0] = 0;
  EXPECT_EQ(stored_for("nvfp4", DType::kF32, {16, 16}, values).at(2), "0000803f");
}

TEST(QuantGolden, NumbersRoundToTheKnownBits) {
  size_t checked = 0;
  for (const std::string& line : golden_lines()) {
    if (!line.starts_with("number ")) {
      continue;
    }
    SCOPED_TRACE(line);
    std::istringstream in(line);
    std::string word;
    std::string format;
    std::string value_text;
    std::string bits_text;
    in >> word >> format >> value_text >> bits_text;
    const float value = std::strtof(value_text.c_str(), nullptr);
    const unsigned long bits = std::strtoul(bits_text.c_str(), nullptr, 16);
    if (format == "e4m3") {
      EXPECT_EQ(float_to_e4m3(value), bits);
    } else if (format == "bf16") {
      EXPECT_EQ(float_to_bf16(value), bits);
    } else {
      ASSERT_EQ(format, "fp16");
      EXPECT_EQ(float_to_fp16(value), bits);
    }
    ++checked;
  }
  EXPECT_GE(checked, 45U);
}

TEST(NumberFormats, SixteenBitValuesSurviveTheWayThroughFp32) {
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const auto narrow = static_cast<uint16_t>(bits);
    const bool bf16_nan = (bits & 0x7fff) > 0x7f80;
    ASSERT_EQ(float_to_bf16(bf16_to_float(narrow)), bf16_nan ? bits | 0x40 : bits);
    const bool fp16_nan = (bits & 0x7fff) > 0x7c00;
    ASSERT_EQ(float_to_fp16(fp16_to_float(narrow)), fp16_nan ? bits | 0x200 : bits);
  }
}

TEST(NumberFormats, E4M3RoundsToTheNearestOfAllItsValuesAndTiesToEvenCodes) {
  // The 127 magnitudes, from the definition of the format.
  std::vector<float> values;
  for (int code = 0; code <= 0x7e; ++code) {
    const int exponent = code >> 3;
    const auto fraction = static_cast<float>(code & 7);
    values.push_back(exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, exponent - 10));
  }
  for (size_t code = 0; code < values.size(); ++code) {
    EXPECT_EQ(float_to_e4m3(values[code]), code);
    EXPECT_EQ(float_to_e4m3(-values[code]), code | 0x80);
    if (code + 1 < values.size()) {
      const float middle = (values[code] + values[code + 1]) / 2;
      EXPECT_EQ(float_to_e4m3(middle), code % 2 == 0 ? code : code + 1);
      EXPECT_EQ(float_to_e4m3(std::nextafter(middle, 0.0F)), code);
      EXPECT_EQ(float_to_e4m3(std::nextafter(middle, 1000.0F)), code + 1);
    }
  }
}

}  // namespace
}  // namespace qcache

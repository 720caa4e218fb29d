#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "core/quant/number_formats.h"
#include "gmock/gmock.h"
#include "tests/quant/all_targets.h"
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
  const std::array<std::span<std::byte>, 2> stored = {codes, scales};
  function({.source_dtype = row.dtype, .row_elements = row.values.size(), .source = source, .stored = stored});
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
      if (kernel.name != row.scheme) {
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

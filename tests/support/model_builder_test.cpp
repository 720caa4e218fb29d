#include "tests/support/model_builder.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/base/env.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

uint16_t half_bits(DType dtype, double value) {
  const auto bytes = TensorData::constant(value).make(dtype, 0, 1);
  uint16_t bits = 0;
  std::memcpy(&bits, bytes.data(), sizeof bits);
  return bits;
}

TEST(TensorData, RoundsToTheNearestHalf) {
  struct Case {
    double value;
    uint16_t f16;
    uint16_t bf16;
  };
  for (const auto& [value, f16, bf16] : std::initializer_list<Case>{
           {0, 0, 0},
           {-0.0, 0x8000, 0x8000},
           {1, 0x3C00, 0x3F80},
           {0.1, 0x2E66, 0x3DCD},
           {-0.02, 0xA51F, 0xBCA4},
           {65504, 0x7BFF, 0x4780},
           {65520, 0x7C00, 0x4780},
           {1.00048828125, 0x3C00, 0x3F80},      // halfway, to even
           {1.00146484375, 0x3C02, 0x3F80},      // halfway, to even
           {1.00390625, 0x3C04, 0x3F80},         // halfway in bf16
           {0x1p-24, 0x0001, 0x3380},            // the least subnormal
           {0x1p-25, 0x0000, 0x3300},            // halfway below it
           {0x1p-14 - 0x1p-25, 0x0400, 0x3880},  // carries from subnormal to normal
           {2047.75, 0x6800, 0x4500},            // carries into the next binade
           {-std::numeric_limits<double>::infinity(), 0xFC00, 0xFF80},
       }) {
    EXPECT_EQ(half_bits(DType::kF16, value), f16) << value;
    EXPECT_EQ(half_bits(DType::kBF16, value), bf16) << value;
  }
}

TEST(TensorData, IsNormalAndSeeded) {
  constexpr uint64_t kCount = 1 << 16;
  const auto bytes = TensorData::normal(1, 0.5).make(DType::kF32, 0, kCount);
  double sum = 0;
  double squares = 0;
  for (uint64_t i = 0; i < kCount; ++i) {
    float value = 0;
    std::memcpy(&value, &bytes[i * 4], 4);
    sum += value;
    squares += double{value} * value;
  }
  EXPECT_NEAR(sum / kCount, 0, 0.01);
  EXPECT_NEAR(std::sqrt(squares / kCount), 0.5, 0.01);
  EXPECT_EQ(TensorData::normal(1, 0.5).make(DType::kF32, 0, kCount), bytes);
  EXPECT_NE(TensorData::normal(2, 0.5).make(DType::kF32, 0, kCount), bytes);
}

TEST(TensorData, AnyRangeIsMadeAlone) {
  for (const DType dtype : {DType::kF64, DType::kBF16, DType::kU8, DType::kI64}) {
    const auto data = TensorData::normal(3);
    const auto all = data.make(dtype, 0, 100);
    const auto part = data.make(dtype, 40, 7);
    EXPECT_EQ(0, std::memcmp(part.data(), &all[40 * item_bytes(dtype)], part.size()));
  }
}

TEST(ModelBuilder, WritesWhatContentReturns) {
  const TempDir dir;
  ModelBuilder model;
  model.tensor("a", DType::kBF16, {4, 4}).tensor("b", DType::kU8, {3});
  model.write(dir / "m");
  const std::string file = read_file(dir / "m/model.safetensors");
  EXPECT_TRUE(file.ends_with(std::string(as_text(model.content("a"))) + std::string(as_text(model.content("b")))));
  EXPECT_EQ((file.size() - 35) % 8, 0U);  // the header is padded, the data is 32 + 3 bytes
}

TEST(ModelBuilder, HolesTakeNoSpace) {
  const TempDir dir;
  ModelBuilder().tensor("a", DType::kF32, {1U << 20, 1024}, TensorData::hole()).write(dir / "m");
  const FileStat stat = Env::posix().stat(dir / "m/model.safetensors").value();
  EXPECT_GT(stat.size_bytes, uint64_t{4} << 30);
  EXPECT_LT(stat.allocated_bytes, uint64_t{1} << 20);
}

TEST(ModelBuilder, HubCacheHasLinksIntoBlobs) {
  const TempDir dir;
  ModelBuilder model;
  model.config("{}").tensor("a", DType::kF32, {2});
  const std::string first = model.write_hub(dir.path(), "org--name");
  const std::string second = model.write_hub(dir.path(), "org--name", std::string(40, 'f'));
  EXPECT_EQ(first, dir / ("models--org--name/snapshots/" + std::string(ModelBuilder::kDefaultCommit)));
  EXPECT_EQ(read_file(dir / "models--org--name/refs/main"), std::string(40, 'f'));
  for (const std::string& snapshot : {first, second}) {
    EXPECT_TRUE(
        Env::posix().real_path(snapshot + "/model.safetensors").value().starts_with(dir / "models--org--name/blobs/"));
    EXPECT_EQ(read_file(snapshot + "/config.json"), "{}");
  }
}

}  // namespace
}  // namespace qcache

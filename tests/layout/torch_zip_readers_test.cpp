#include <gtest/gtest.h>

#include <cstdlib>
#include <random>
#include <string>

#include "core/layout/torch_zip.h"
#include "tests/layout/checkpoint_file.h"
#include "tests/layout/test_schemes.h"
#include "tests/support/plans.h"
#include "tests/support/temp_dir.h"

// What readers that others wrote say of our files: Python's zipfile, and its pickle with stand-ins for torch's
// classes; unzip. Skipped where they are not installed.

namespace qcache {
namespace {

bool has_program(const std::string& name) {
  return std::system(("command -v " + name + " >/dev/null").c_str()) == 0;  // NOLINT(concurrency-mt-unsafe)
}

int run(const std::string& command) {
  return std::system(command.c_str());  // NOLINT(concurrency-mt-unsafe): one thread
}

class TorchZipReaders : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_program("python3")) {
      GTEST_SKIP() << "python3 is not installed";
    }
  }

  void write(const std::string& name, const SourceModel& model, const Scheme& scheme, const TorchZipOptions& options,
             const TensorBytes& tensors = scrambled_bytes) {
    const auto plan = plan_torch_zip(model, scheme, options);
    ASSERT_TRUE(plan.has_value()) << plan.error().message;
    write_checkpoint(**plan, dir_ / name, tensors);
    paths_ += " '" + (dir_ / name) + "'";
  }
  void expect_zip_check(const std::string& options = "") {
    EXPECT_EQ(run("python3 " QCACHE_TORCH_ZIP_CHECK " zip " + options + paths_), 0);
  }

  TempDir dir_;
  std::string paths_;
};

const TestScheme& copy_scheme() {
  static const TestScheme kScheme("copy", [](const TensorInfo& tensor) { return copy_encoding(tensor); });
  return kScheme;
}

TEST_F(TorchZipReaders, FindTheTensorsOfRandomModelsUnharmed) {
  const TestScheme odd("odd", odd_encoding);
  const TestScheme int8("int8", int8_encoding);
  std::mt19937_64 random(1);
  for (int i = 0; i < 6; ++i) {
    const SourceModel model = random_model(random, 20);
    const std::string suffix = std::to_string(i) + ".bin";
    ASSERT_NO_FATAL_FAILURE(write("copy" + suffix, model, copy_scheme(), {}));
    ASSERT_NO_FATAL_FAILURE(write("int8" + suffix, model, int8, {}));
    ASSERT_NO_FATAL_FAILURE(write("odd" + suffix, model, odd, {}));
    ASSERT_NO_FATAL_FAILURE(write("dense" + suffix, model, odd, {64, 0, false, false}));
  }
  ASSERT_NO_FATAL_FAILURE(write("none.bin", make_model({}), copy_scheme(), {}));
  expect_zip_check();
}

TEST_F(TorchZipReaders, PassUnzipsTest) {
  if (!has_program("unzip")) {
    GTEST_SKIP() << "unzip is not installed";
  }
  std::mt19937_64 random(2);
  const TestScheme odd("odd", odd_encoding);
  ASSERT_NO_FATAL_FAILURE(write("a.bin", random_model(random, 40), odd, {}));
  EXPECT_EQ(run("unzip -tqq '" + (dir_ / "a.bin") + "'"), 0);
  EXPECT_EQ(run("unzip -p '" + (dir_ / "a.bin") + "' archive/qcache.json | grep -q '\"dtype\":\"odd\"'"), 0);
}

TEST_F(TorchZipReaders, CopeWithMoreMembersThan16Bits) {
  constexpr int kMany = 66000;
  std::vector<TensorInfo> tensors;
  tensors.reserve(kMany);
  for (int i = 0; i < kMany; ++i) {
    tensors.push_back(make_tensor("layers." + std::to_string(i), DType::kF16, {2}));
  }
  ASSERT_NO_FATAL_FAILURE(write("many.bin", make_model(std::move(tensors)), copy_scheme(), {64, 0, true, true}));
  expect_zip_check();
}

TEST_F(TorchZipReaders, CopeWithRecordsAndOffsetsBeyond4GiB) {
  const SourceModel model =
      make_model({make_tensor("first", DType::kF32, {5}), make_tensor("vast", DType::kF16, {5, 1024, 512, 1024}),
                  make_tensor("after", DType::kF32, {3, 2}), make_tensor("last", DType::kI64, {})});
  const auto bytes = [](uint32_t group, uint32_t stored, uint64_t offset, std::span<std::byte> out) {
    (group == 1 ? zero_bytes : scrambled_bytes)(group, stored, offset, out);
  };
  ASSERT_NO_FATAL_FAILURE(write("vast.bin", model, copy_scheme(), {}, bytes));
  // The CRC of the 5 GiB is left to runs by hand.
  expect_zip_check("--limit-bytes 1000000000");
}

}  // namespace
}  // namespace qcache

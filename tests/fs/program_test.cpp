#include <cstdlib>
#include <filesystem>
#include <regex>

#include "tests/fs/mount_test.h"

namespace qcache {
namespace {

/// A mount beside a program that uses the installed library: tests/package/example, built against some libtorch.
class MountProgram : public MountTest {
 protected:
  void SetUp() override {
    MountTest::SetUp();
    if (IsSkipped()) {
      return;
    }
    const char* const program = std::getenv("QCACHE_TEST_EXAMPLE");
    if (program == nullptr || !std::filesystem::exists(program)) {
      GTEST_SKIP() << "the example is not built; `ctest -R package` does it";
    }
    program_ = program;
    ModelBuilder()
        .config(R"({"model_type":"llama","architectures":["LlamaForCausalLM"]})")
        .tensor("model.embed_tokens.weight", DType::kBF16, {256, 512})
        .tensor("model.layers.0.self_attn.q_proj.weight", DType::kBF16, {2048, 1024})
        .tensor("model.layers.0.self_attn.k_proj.weight", DType::kBF16, {512, 1024})
        .tensor("model.norm.weight", DType::kBF16, {1024})
        .write(model("m"));
    // What the program has in memory: the model as it is.
    const MountedFs& fs = mount();
    EXPECT_EQ(read_whole(fs.path("m/bf16/0.bin")).error, 0);
    fs.wait_until_sealed("m/bf16/0.bin");
  }

  /// Runs the program to its end, with its output in output().
  int run(const std::string& command, const std::string& dtype) {
    return run_program({"env", "QWEN_CACHE=" + cache(), program_, command, model("m"), "bf16", dtype},
                       dir() / "output");
  }
  [[nodiscard]] std::string output() const { return read_file(dir() / "output"); }
  [[nodiscard]] double sqnr() const {
    std::smatch number;
    const std::string text = output();
    return std::regex_search(text, number, std::regex("sqnr ([0-9.]+)")) ? std::stod(number[1]) : 0;
  }

 private:
  std::string program_;
};

const std::vector<std::pair<std::string, double>> kDtypesAndSqnr = {
    {"int8", 40}, {"fp8", 31}, {"int4", 18}, {"nf4-dq", 20}, {"nvfp4", 19}, {"qint4", 19}, {"fp32", 150}};

// S62: What a C++ program saves with `save_quantized_model()` for a folder of a mount is served there, complete, and no
// tile is made.
TEST_F(MountProgram, WhatAProgramSavesIsServed) {
  for (const auto& [dtype, unused] : kDtypesAndSqnr) {
    ASSERT_EQ(run("save", dtype), 0) << output();
    EXPECT_NE(output().find("valid: 1"), std::string::npos) << output();
  }
  MountedFs& fs = mount_as("later");
  for (const auto& [dtype, unused] : kDtypesAndSqnr) {
    const std::string file = "m/" + dtype + "/0.bin";
    EXPECT_EQ(fs.xattr(file, "state"), "sealed") << dtype;
    EXPECT_TRUE(reads_as(read_whole(fs.path(file)), expected_file(model("m"), dtype))) << dtype;
  }
  EXPECT_EQ(fs.status("tiles_quantized"), 0U);
  EXPECT_EQ(fs.status("opens_filling"), 0U);
  EXPECT_GE(fs.status("opens_sealed"), kDtypesAndSqnr.size());
}

// S63: What a mount has completed, `load_quantized_model()` gives to C++ programs: the stored tensors as views of the
// cached file, and their values in a module.
TEST_F(MountProgram, WhatAMountMadeIsLoaded) {
  MountedFs& fs = mount_as("later");
  for (const auto& [dtype, least] : kDtypesAndSqnr) {
    const std::string file = "m/" + dtype + "/0.bin";
    EXPECT_EQ(read_whole(fs.path(file)).error, 0);
    fs.wait_until_sealed(file);
    // libtorch before 2.2 has no float8, so that programs can load the values only.
    const bool float8 = dtype == "fp8" || dtype == "nvfp4";
    const int status = run("load", dtype);
    if (float8 && status != 0) {
      EXPECT_NE(output().find("this libtorch has no float8_e4m3fn"), std::string::npos) << output();
      ASSERT_EQ(run("load-values", dtype), 0) << output();
    } else {
      ASSERT_EQ(status, 0) << output();
      EXPECT_NE(output().find("stored model.layers.0.self_attn.q_proj."), std::string::npos) << output();
    }
    EXPECT_GT(sqnr(), least) << dtype << ' ' << output();
  }
}

// S64: A program's model that is not the folder's, in names, dtypes, shapes or values, is not saved for that folder.
TEST_F(MountProgram, OnlyTheFoldersModelIsSavedForIt) {
  EXPECT_EQ(run("save-changed", "int8"), 1);
  EXPECT_NE(output().find("has other values than in " + model("m")), std::string::npos) << output();
  EXPECT_EQ(mount_as("later").xattr("m/int8/0.bin", "state"), "absent");
}

}  // namespace
}  // namespace qcache

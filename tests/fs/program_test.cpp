#include <cstdlib>
#include <filesystem>
#include <map>
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

  /// Runs the program to its end, for all dtypes at once: libtorch takes its time to start.
  int run(const std::string& command, const std::map<std::string, double>& dtypes) {
    std::vector<std::string> words = {"env", "QWEN_CACHE=" + cache(), program_, command, model("m"), "bf16"};
    for (const auto& [dtype, unused] : dtypes) {
      words.push_back(dtype);
    }
    return run_program(words, dir() / "output");
  }
  [[nodiscard]] std::string output() const { return read_file(dir() / "output"); }
  /// What the program said of each dtype.
  [[nodiscard]] std::vector<std::string> numbers(const std::string& word) const {
    std::vector<std::string> found;
    const std::string text = output();
    const std::regex line(word + "([0-9.]+)");
    for (std::sregex_iterator it(text.begin(), text.end(), line), end; it != end; ++it) {
      found.push_back((*it)[1]);
    }
    return found;
  }

 private:
  std::string program_;
};

/// Dtypes, and the least signal to noise in dB that their values must have.
const std::map<std::string, double> kDtypes = {{"int8", 40},  {"fp8", 31},   {"int4", 18}, {"nf4-dq", 20},
                                               {"nvfp4", 19}, {"qint4", 19}, {"fp32", 150}};

// S62: What a C++ program saves with `save_quantized_model()` for a folder of a mount is served there, complete, and no
// tile is made.
TEST_F(MountProgram, WhatAProgramSavesIsServed) {
  ASSERT_EQ(run("save", kDtypes), 0) << output();
  EXPECT_EQ(numbers("valid: "), std::vector<std::string>(kDtypes.size(), "1")) << output();
  MountedFs& fs = mount_as("later");
  for (const auto& [dtype, unused] : kDtypes) {
    const std::string file = "m/" + dtype + "/0.bin";
    EXPECT_EQ(fs.xattr(file, "state"), "sealed") << dtype;
    EXPECT_TRUE(reads_as(read_whole(fs.path(file)), expected_file(model("m"), dtype))) << dtype;
  }
  EXPECT_EQ(fs.status("tiles_quantized"), 0U);
  EXPECT_EQ(fs.status("opens_filling"), 0U);
  EXPECT_GE(fs.status("opens_sealed"), kDtypes.size());
}

// S63: What a mount has completed, `load_quantized_model()` gives to C++ programs: the stored tensors as views of the
// cached file, and their values in a module.
TEST_F(MountProgram, WhatAMountMadeIsLoaded) {
  MountedFs& fs = mount_as("later");
  for (const auto& [dtype, unused] : kDtypes) {
    const std::string file = "m/" + dtype + "/0.bin";
    EXPECT_EQ(read_whole(fs.path(file)).error, 0);
    fs.wait_until_sealed(file);
  }
  ASSERT_EQ(run("load", kDtypes), 0) << output();
  for (const char* const stored :
       {"q_proj.weight_packed", "q_proj.weight._data._data", "q_proj.weight.nested_absmax"}) {
    EXPECT_NE(output().find(std::string("stored model.layers.0.self_attn.") + stored), std::string::npos) << output();
  }
  const std::vector<std::string> sqnr = numbers("sqnr ");
  ASSERT_EQ(sqnr.size(), kDtypes.size()) << output();
  size_t next = 0;
  for (const auto& [dtype, least] : kDtypes) {
    EXPECT_GT(std::stod(sqnr[next++]), least) << dtype << '\n' << output();
  }
}

// S64: A program's model that is not the folder's, in names, dtypes, shapes or values, is not saved for that folder.
TEST_F(MountProgram, OnlyTheFoldersModelIsSavedForIt) {
  EXPECT_EQ(run("save-changed", {{"int8", 0}}), 1);
  EXPECT_NE(output().find("has other values than in " + model("m")), std::string::npos) << output();
  EXPECT_EQ(mount_as("later").xattr("m/int8/0.bin", "state"), "absent");
}

}  // namespace
}  // namespace qcache

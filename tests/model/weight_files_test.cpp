#include "core/model/weight_files.h"

#include <gtest/gtest.h>

#include <tuple>

#include "tests/support/result_matchers.h"

namespace qcache {
namespace {

using Format = WeightFormat;
using Names = std::vector<std::string>;

const std::string kOne = "model-00001-of-00002.safetensors";
const std::string kTwo = "model-00002-of-00002.safetensors";

TEST(WeightFiles, ChoosesSafetensorsAsAUserExpects) {
  struct Case {
    Names folder;
    Names chosen;
  };
  for (const auto& [folder, chosen] : std::initializer_list<Case>{
           {{"config.json", "model.safetensors"}, {"model.safetensors"}},
           {{"model.safetensors.index.json", "model.safetensors", kOne, kTwo}, {"model.safetensors"}},
           {{kTwo, kOne}, {kOne, kTwo}},
           {{"b.safetensors", "a.safetensors", "c.bin"}, {"a.safetensors", "b.safetensors"}},
           {{"Qwen2.5-0.5B.safetensors"}, {"Qwen2.5-0.5B.safetensors"}},
           // variants
           {{"d.safetensors", "d.fp16.safetensors"}, {"d.safetensors"}},
           {{"d.fp16.safetensors"}, {"d.fp16.safetensors"}},
           {{kOne, kTwo, "model.fp16.safetensors"}, {kOne, kTwo}},
           {{kOne, kTwo, "model-00001-of-00001.fp16.safetensors"}, {kOne, kTwo}},
           {{kOne, kTwo, "model.fp16-00001-of-00001.safetensors"}, {kOne, kTwo}},
           {{"d.safetensors", "d.a.safetensors", "d.a.b.safetensors"}, {"d.safetensors"}},
           // adapters
           {{kOne, kTwo, "adapter_model.safetensors"}, {kOne, kTwo}},
           {{"adapter_model.safetensors"}, {"adapter_model.safetensors"}},
           // names that only look like shards
           {{"x-00003-of-00002.safetensors"}, {"x-00003-of-00002.safetensors"}},
           {{"x-00001-of-00002b.safetensors"}, {"x-00001-of-00002b.safetensors"}},
           {{"-of-00002.safetensors"}, {"-of-00002.safetensors"}},
           {{"x-0000a-of-00002.safetensors"}, {"x-0000a-of-00002.safetensors"}},
       }) {
    const auto files = choose_weight_files(folder);
    ASSERT_THAT(files, is_ok()) << testing::PrintToString(folder);
    EXPECT_EQ(files->format, Format::kSafetensors) << testing::PrintToString(folder);
    EXPECT_EQ(files->index, "") << testing::PrintToString(folder);
    EXPECT_EQ(files->names, chosen) << testing::PrintToString(folder);
    EXPECT_EQ(weight_signs(folder), WeightSigns::kSure);
  }
}

TEST(WeightFiles, ChoosesTorchFilesAsAUserExpects) {
  const std::string one = "pytorch_model-00001-of-00002.bin";
  const std::string two = "pytorch_model-00002-of-00002.bin";
  struct Case {
    Names folder;
    Names chosen;
    WeightSigns signs;
  };
  constexpr auto kSure = WeightSigns::kSure;
  constexpr auto kLoose = WeightSigns::kLooseTorch;
  for (const auto& [folder, chosen, signs] : std::initializer_list<Case>{
           {{"pytorch_model.bin", "training_args.bin", "x.safetensors", one}, {"pytorch_model.bin"}, kSure},
           {{"pytorch_model.bin", "pytorch_model.bin.index.json", one}, {"pytorch_model.bin"}, kSure},
           {{one, two}, {one, two}, kLoose},
           {{"m.pt", "n.pth", "o.bin", "README.md"}, {"m.pt", "n.pth", "o.bin"}, kLoose},
           {{"m.pth", "m.fp16.pth"}, {"m.pth"}, kLoose},
           {{"m.pt", "optimizer.pt", "optimizer_1.bin", "scheduler.pt", "scaler.pt", "training_args.bin",
             "rng_state.pth", "rng_state_0.pth", "random_states_0.pt", "zero_pp_rank_0_optim_states.pt"},
            {"m.pt"},
            kLoose},
           {{"m.bin", "adapter_model.bin"}, {"m.bin"}, kLoose},
           {{"adapter_model.bin", "training_args.bin"}, {"adapter_model.bin"}, kLoose},
       }) {
    const auto files = choose_weight_files(folder);
    ASSERT_THAT(files, is_ok()) << testing::PrintToString(folder);
    EXPECT_EQ(files->format, Format::kTorch) << testing::PrintToString(folder);
    EXPECT_EQ(files->index, "") << testing::PrintToString(folder);
    EXPECT_EQ(files->names, chosen) << testing::PrintToString(folder);
    EXPECT_EQ(weight_signs(folder), signs) << testing::PrintToString(folder);
  }
}

TEST(WeightFiles, TheOrderOfPreferenceIsThatOfTransformers) {
  Names folder = {"model.safetensors", "model.safetensors.index.json",
                  "pytorch_model.bin", "pytorch_model.bin.index.json",
                  "x.safetensors",     "x.bin"};
  const Names well_known(folder.begin(), folder.begin() + 4);
  Names earlier;
  for (const auto& [name, format, is_index] : std::initializer_list<std::tuple<std::string, Format, bool>>{
           {"model.safetensors", Format::kSafetensors, false},
           {"model.safetensors.index.json", Format::kSafetensors, true},
           {"pytorch_model.bin", Format::kTorch, false},
           {"pytorch_model.bin.index.json", Format::kTorch, true},
           {"x.safetensors", Format::kSafetensors, false},
           {"x.bin", Format::kTorch, false},
       }) {
    const auto files = choose_weight_files(folder);
    ASSERT_THAT(files, is_ok()) << name;
    EXPECT_EQ(files->format, format) << name;
    EXPECT_EQ(files->names, is_index ? Names() : Names{name});
    EXPECT_EQ(files->index, is_index ? name : "");
    EXPECT_EQ(files->earlier, earlier) << name;
    if (earlier.size() < well_known.size()) {
      earlier.push_back(name);
    }
    folder.erase(folder.begin());
  }
}

TEST(WeightFiles, ReportsMissingShardsAndMissingWeights) {
  for (const std::string extension : {".safetensors", ".bin", ".pth"}) {
    const Names folder = {"m-00001-of-00003" + extension, "m-00003-of-00003" + extension};
    EXPECT_THAT(choose_weight_files(folder),
                fails_with(ErrorKind::kInvalidModel, {"3 files of 'm'", "only 2", "number 2 is missing"}));
    EXPECT_EQ(weight_signs(folder), WeightSigns::kSure);
  }
  EXPECT_THAT(choose_weight_files({"config.json", ".safetensors", "optimizer.pt", ".bin"}),
              fails_with(ErrorKind::kNotFound, {"no weights"}));
}

TEST(WeightFiles, TellsAFolderWithWeights) {
  EXPECT_EQ(weight_signs({"x", "a.safetensors"}), WeightSigns::kSure);
  EXPECT_EQ(weight_signs({}), WeightSigns::kNone);
  EXPECT_EQ(weight_signs({".safetensors", "a.safetensors.index.json", "a.safetensors.incomplete", "training_args.bin"}),
            WeightSigns::kNone);
}

TEST(WeightFiles, PlainFileNamesStayInTheirFolder) {
  for (const char* name : {"a", "model.safetensors", "...", ".a", "a b"}) {
    EXPECT_TRUE(is_plain_file_name(name)) << name;
  }
  for (const std::string& name :
       Names{"", ".", "..", "a/b", "/a", "a/", "a\\b", std::string("a\0b", 3), std::string(256, 'a')}) {
    EXPECT_FALSE(is_plain_file_name(name)) << name;
  }
}

}  // namespace
}  // namespace qcache

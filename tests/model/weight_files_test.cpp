#include "core/model/weight_files.h"

#include <gtest/gtest.h>

#include "tests/support/result_matchers.h"

namespace qcache {
namespace {

using Layout = WeightFiles::Layout;
using Names = std::vector<std::string>;

TEST(WeightFiles, ChoosesWhatAUserExpects) {
  struct Case {
    Names folder;
    Layout layout;
    Names chosen;
  };
  const std::string one = "model-00001-of-00002.safetensors";
  const std::string two = "model-00002-of-00002.safetensors";
  for (const auto& [folder, layout, chosen] : std::initializer_list<Case>{
           {{"config.json", "model.safetensors"}, Layout::kSingle, {"model.safetensors"}},
           {{"model.safetensors.index.json", "model.safetensors", one, two}, Layout::kSingle, {"model.safetensors"}},
           {{one, "model.safetensors.index.json", two}, Layout::kIndexed, {}},
           {{two, one}, Layout::kLoose, {one, two}},
           {{"b.safetensors", "a.safetensors", "c.bin"}, Layout::kLoose, {"a.safetensors", "b.safetensors"}},
           {{"Qwen2.5-0.5B.safetensors"}, Layout::kLoose, {"Qwen2.5-0.5B.safetensors"}},
           // variants
           {{"d.safetensors", "d.fp16.safetensors"}, Layout::kLoose, {"d.safetensors"}},
           {{"d.fp16.safetensors"}, Layout::kLoose, {"d.fp16.safetensors"}},
           {{one, two, "model.fp16.safetensors"}, Layout::kLoose, {one, two}},
           {{one, two, "model-00001-of-00001.fp16.safetensors"}, Layout::kLoose, {one, two}},
           {{one, two, "model.fp16-00001-of-00001.safetensors"}, Layout::kLoose, {one, two}},
           {{"d.safetensors", "d.a.safetensors", "d.a.b.safetensors"}, Layout::kLoose, {"d.safetensors"}},
           // adapters
           {{one, two, "adapter_model.safetensors"}, Layout::kLoose, {one, two}},
           {{"adapter_model.safetensors"}, Layout::kLoose, {"adapter_model.safetensors"}},
           // names that only look like shards
           {{"x-00003-of-00002.safetensors"}, Layout::kLoose, {"x-00003-of-00002.safetensors"}},
           {{"x-00001-of-00002b.safetensors"}, Layout::kLoose, {"x-00001-of-00002b.safetensors"}},
           {{"-of-00002.safetensors"}, Layout::kLoose, {"-of-00002.safetensors"}},
           {{"x-0000a-of-00002.safetensors"}, Layout::kLoose, {"x-0000a-of-00002.safetensors"}},
       }) {
    const auto files = choose_weight_files(folder);
    ASSERT_THAT(files, is_ok()) << testing::PrintToString(folder);
    EXPECT_EQ(files->layout, layout) << testing::PrintToString(folder);
    EXPECT_EQ(files->names, chosen) << testing::PrintToString(folder);
  }
}

TEST(WeightFiles, ReportsMissingShardsAndMissingWeights) {
  EXPECT_THAT(choose_weight_files({"m-00001-of-00003.safetensors", "m-00003-of-00003.safetensors"}),
              fails_with(ErrorKind::kInvalidModel, {"3 files of 'm'", "only 2", "number 2 is missing"}));
  EXPECT_THAT(choose_weight_files({"config.json", ".safetensors"}), fails_with(ErrorKind::kNotFound, {"no weights"}));
}

TEST(WeightFiles, TellsAFolderWithWeights) {
  EXPECT_TRUE(holds_weights({"x", "a.safetensors"}));
  EXPECT_FALSE(holds_weights({}));
  EXPECT_FALSE(holds_weights({".safetensors", "a.safetensors.index.json", "a.safetensors.incomplete"}));
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

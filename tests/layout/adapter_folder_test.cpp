#include "core/layout/adapter_folder.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

namespace qcache {
namespace {

using testing::ElementsAre;

nlohmann::json config_of(const std::string& config_text, std::vector<std::string> quantized,
                         std::vector<std::string> dense, const std::string& base = "") {
  SourceModel model;
  model.config_text = config_text;
  const auto files = plan_adapter_folder({model, {}, std::move(quantized), std::move(dense)}, 16, base);
  EXPECT_EQ(files.size(), 1U);
  EXPECT_EQ(files.at(0).name, "adapter_config.json");
  return nlohmann::json::parse(files.at(0).text);
}

TEST(AdapterFolder, TargetsAreTheLastPartsOfNames) {
  const auto config = config_of("{}", {"model.layers.0.q_proj", "model.layers.1.q_proj", "model.layers.0.up_proj"},
                                {"lm_head"}, "/mnt/m/nf4/16");
  EXPECT_THAT(config.at("target_modules").get<std::vector<std::string>>(), ElementsAre("q_proj", "up_proj"));
  EXPECT_EQ(config.at("r"), 16);
  EXPECT_EQ(config.at("lora_alpha"), 16) << "PEFT multiplies by alpha / r";
  EXPECT_EQ(config.at("base_model_name_or_path"), "/mnt/m/nf4/16");
}

TEST(AdapterFolder, TargetsAreFullNamesWhereADenseModuleIsNamedAlike) {
  const auto config = config_of("{}", {"encoder.0.dense", "encoder.1.dense"}, {"pooler.dense"});
  EXPECT_THAT(config.at("target_modules").get<std::vector<std::string>>(),
              ElementsAre("encoder.0.dense", "encoder.1.dense"));
  EXPECT_TRUE(config.at("base_model_name_or_path").is_null());
}

TEST(AdapterFolder, TheTaskFollowsFromTheArchitecture) {
  struct Case {
    const char* config;
    nlohmann::json task;
  };
  for (const Case& c :
       {Case{R"({"architectures":["Qwen2ForCausalLM"]})", "CAUSAL_LM"},
        Case{R"({"architectures":["T5ForConditionalGeneration"],"is_encoder_decoder":true})", "SEQ_2_SEQ_LM"},
        Case{R"({"architectures":["Qwen2VLForConditionalGeneration"]})", nullptr},
        Case{R"({"architectures":["BertModel"]})", nullptr}, Case{R"({"architectures":[3]})", nullptr},
        Case{R"({"architectures":"x"})", nullptr}, Case{"{}", nullptr}, Case{"", nullptr}, Case{"[]", nullptr}}) {
    EXPECT_EQ(config_of(c.config, {"a.b"}, {}).at("task_type"), c.task) << c.config;
  }
}

TEST(AdapterFolder, APipelinesComponentNeedsNoConfig) {
  SourceModel model;
  model.component = "transformer";
  EXPECT_EQ(factor_prefix(model), "transformer.");
  EXPECT_TRUE(plan_adapter_folder({model, {}, {"a.to_q"}, {}}, 4, "").empty());
}

}  // namespace
}  // namespace qcache

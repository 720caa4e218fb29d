#include "core/model/model_facts.h"

#include <gtest/gtest.h>

#include "tests/support/result_matchers.h"

namespace qcache {
namespace {

TEST(ModelFacts, ReadsAnOrdinaryConfig) {
  const ModelFacts facts = parse_model_facts(R"({
    "architectures": ["Qwen2ForCausalLM", "Other"], "model_type": "qwen2", "torch_dtype": "bfloat16",
    "tie_word_embeddings": true, "rope_scaling": null, "hidden_size": 896, "nested": {"model_type": "no"}})");
  EXPECT_TRUE(facts.has_config);
  EXPECT_EQ(facts.config_problem, "");
  EXPECT_EQ(facts.model_type, "qwen2");
  EXPECT_EQ(facts.architectures, (std::vector<std::string>{"Qwen2ForCausalLM", "Other"}));
  EXPECT_EQ(facts.declared_dtype, DType::kBF16);
  EXPECT_TRUE(facts.tied_embeddings);
  EXPECT_FALSE(facts.mixture_of_experts);
  EXPECT_EQ(facts.quant_method, "");
}

TEST(ModelFacts, MissingOrOddValuesStayEmpty) {
  for (const char* json :
       {"{}", R"({"model_type":1,"architectures":"","torch_dtype":"auto","tie_word_embeddings":"yes"})",
        R"({"model_type":"a\nb","architectures":null,"dtype":null,"tie_word_embeddings":null})"}) {
    const ModelFacts facts = parse_model_facts(json);
    EXPECT_TRUE(facts.has_config);
    EXPECT_EQ(facts.model_type, "");
    EXPECT_EQ(facts.declared_dtype, std::nullopt);
    EXPECT_FALSE(facts.tied_embeddings);
  }
}

TEST(ModelFacts, DtypeComesBeforeTorchDtype) {
  EXPECT_EQ(parse_model_facts(R"({"dtype":"float16","torch_dtype":"float32"})").declared_dtype, DType::kF16);
  EXPECT_EQ(parse_model_facts(R"({"torch_dtype":"float32","dtype":"float16"})").declared_dtype, DType::kF16);
  EXPECT_EQ(parse_model_facts(R"({"torch_dtype":"torch.float32"})").declared_dtype, DType::kF32);
  EXPECT_EQ(parse_model_facts(R"({"torch_dtype":"float32","dtype":null})").declared_dtype, DType::kF32);
}

TEST(ModelFacts, TextConfigCountsWhereTheWholeIsSilent) {
  const ModelFacts facts = parse_model_facts(
      R"({"model_type":"llava","text_config":{"model_type":"llama","architectures":["A"],"dtype":"float16",
          "tie_word_embeddings":true,"num_experts":8,"quantization_config":{"quant_method":"awq"}}})");
  EXPECT_EQ(facts.model_type, "llava");
  EXPECT_EQ(facts.architectures, std::vector<std::string>{"A"});
  EXPECT_EQ(facts.declared_dtype, DType::kF16);
  EXPECT_TRUE(facts.tied_embeddings);
  EXPECT_TRUE(facts.mixture_of_experts);
  EXPECT_EQ(facts.quant_method, "awq");
  EXPECT_FALSE(
      parse_model_facts(R"({"tie_word_embeddings":false,"text_config":{"tie_word_embeddings":true}})").tied_embeddings);
}

TEST(ModelFacts, KnowsMixturesOfExperts) {
  for (const char* json : {R"({"num_experts":60})", R"({"num_local_experts":8})", R"({"n_routed_experts":256})",
                           R"({"moe_num_experts":[64,64]})"}) {
    EXPECT_TRUE(parse_model_facts(json).mixture_of_experts) << json;
  }
  for (const char* json : {R"({"num_experts":1})", R"({"num_local_experts":0})", R"({"n_routed_experts":null})",
                           R"({"num_experts":-4})", R"({"x":{"num_experts":8}})"}) {
    EXPECT_FALSE(parse_model_facts(json).mixture_of_experts) << json;
  }
}

TEST(ModelFacts, KnowsQuantizedModelsByTheirConfig) {
  EXPECT_EQ(parse_model_facts(R"({"quantization_config":{"quant_method":"gptq","bits":4}})").quant_method, "gptq");
  EXPECT_EQ(parse_model_facts(R"({"compression_config":{"quant_method":"compressed-tensors"}})").quant_method,
            "compressed-tensors");
  EXPECT_EQ(parse_model_facts(R"({"quantization_config":{"load_in_4bit":true}})").quant_method, "bitsandbytes");
  EXPECT_EQ(parse_model_facts(R"({"quantization_config":{"bits":4}})").quant_method, "an unnamed method");
  EXPECT_EQ(parse_model_facts(R"({"quantization_config":null})").quant_method, "");
  // A quantized part of the config says nothing of the model's type.
  EXPECT_EQ(parse_model_facts(R"({"quantization_config":{"quant_method":"x","model_type":"y","dtype":"float16"}})")
                .model_type,
            "");
}

TEST(ModelFacts, ReadsWhatPythonWrites) {
  const ModelFacts facts =
      parse_model_facts(R"({"time_step_limit":[0.0,Infinity],"x":NaN,"x":-Infinity,"model_type":"mamba2"})");
  EXPECT_EQ(facts.config_problem, "");
  EXPECT_EQ(facts.model_type, "mamba2");
}

TEST(ModelFacts, ABrokenConfigIsToldNotFatal) {
  struct Case {
    std::string json;
    const char* words;
  };
  for (const auto& [json, words] : std::initializer_list<Case>{
           {"", "not JSON"},
           {"[]", "not a JSON object"},
           {R"({"model_type":"qwen2",)", "not JSON"},
           {"{\"a\":\"\xFF\"}", "not UTF-8"},
           {R"({"a":)" + std::string(100000, '['), "deeper"},
       }) {
    const ModelFacts facts = parse_model_facts(json);
    EXPECT_FALSE(facts.has_config) << json.substr(0, 40);
    EXPECT_THAT(facts.config_problem, testing::HasSubstr(words));
    EXPECT_EQ(facts.model_type, "");
  }
}

TEST(ModelFacts, TensorsTellWhatTheConfigDoesNot) {
  const auto facts_of = [](const char* name, DType dtype, const Shape& shape) {
    ModelFacts facts;
    add_tensor_facts({TensorInfo{"norm.weight", DType::kF32, {4}, 0, {}}, TensorInfo{name, dtype, shape, 0, {}}},
                     facts);
    return facts;
  };
  EXPECT_EQ(facts_of("a.weight", DType::kF8E4M3, {2, 2}).quant_method, "float8 weights");
  EXPECT_EQ(facts_of("a.weight", DType::kF8E5M2, {2, 2}).quant_method, "float8 weights");
  EXPECT_EQ(facts_of("a.weight", DType::kU8, {2, 1}).quant_method, "8-bit integer weights");
  EXPECT_EQ(facts_of("a.qweight", DType::kI32, {2, 2}).quant_method, "packed weights");
  EXPECT_EQ(facts_of("a.weight", DType::kU32, {2, 2}).quant_method, "packed integers");
  EXPECT_EQ(facts_of("a.experts.weight", DType::kU32, {2, 2, 2}).quant_method, "packed integers");
  EXPECT_EQ(facts_of("a.weight", DType::kF4, {2, 2}).quant_method, "packed floats");
  EXPECT_EQ(facts_of("a.weight", DType::kF8E5M2Fnuz, {2, 2}).quant_method, "float8 weights");
  for (const char* name : {"a.W_q", "a.trellis", "a.q_weight", "a.weight._data", "experts.down_proj_blocks",
                           "a.weight.quant_state.bitsandbytes__nf4"}) {
    EXPECT_EQ(facts_of(name, DType::kU8, {2, 2}).quant_method, "packed weights") << name;
    EXPECT_EQ(facts_of(name, DType::kBF16, {2, 2}).quant_method, "") << name;
  }
  EXPECT_EQ(facts_of("a.weight", DType::kI64, {2, 2}).quant_method, "");
  EXPECT_EQ(facts_of("a.weight", DType::kBF16, {2, 2}).quant_method, "");
  EXPECT_EQ(facts_of("a.weight", DType::kF8E4M3, {2}).quant_method, "");
  EXPECT_EQ(facts_of("a.mask", DType::kU8, {2, 2}).quant_method, "");
  EXPECT_TRUE(facts_of("m.experts.0.weight", DType::kBF16, {2, 2}).mixture_of_experts);
  EXPECT_FALSE(facts_of("m.expert.0.weight", DType::kBF16, {2, 2}).mixture_of_experts);
  ModelFacts named;
  named.quant_method = "fp8";
  add_tensor_facts({TensorInfo{"a.weight", DType::kF8E4M3, {2, 2}, 0, {}}}, named);
  EXPECT_EQ(named.quant_method, "fp8");
}

}  // namespace
}  // namespace qcache

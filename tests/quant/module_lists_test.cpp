#include "core/quant/module_lists.h"

#include "gmock/gmock.h"
#include "tests/quant/encode_tensor.h"

namespace qcache {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::Not;
using testing::Optional;

const SourceModel kModel;

StoredModel stored(std::vector<std::string> quantized, std::vector<std::string> dense) {
  return {.model = kModel, .choices = {}, .quantized_modules = std::move(quantized), .dense_modules = std::move(dense)};
}

TEST(TransformersSkipList, HasPlainNamesWhereTheyMatchDenseModulesOnly) {
  EXPECT_THAT(transformers_skip_list(stored({"layers.0.q_proj"}, {"lm_head", "layers.0.gate"})),
              ElementsAre("lm_head", "layers.0.gate"));
}

TEST(TransformersSkipList, AnchorsNamesThatWouldMatchAQuantizedModule) {
  struct Case {
    const char* dense;
    const char* quantized;
    const char* entry;
  };
  for (const Case& c : {
           Case{"output", "layer.0.attention.output", "^output$"},  // its end
           Case{"head", "layers.0.multihead", "^head$"},            // its end, amid a part
           Case{"layers.1", "layers.1.q_proj", R"(^layers\.1$)"},   // above it
           Case{"layers.1", "layers.11.q_proj", "layers.1"},        // not at a boundary
           Case{"a.b", "a_b.q_proj", R"(^a\.b$)"},                  // a dot stands for any character
           Case{"a.b", "a_b", R"(^a\.b$)"},                         // the same length
           Case{"b.q_proj", "a.b.q_proj.x", "b.q_proj"},            // neither start nor end
           Case{"a(b", "layers.0.q_proj", R"(^a\(b$)"},             // no expression at all
           Case{"a|layers", "layers.0.q_proj", R"(^a\|layers$)"},   // another expression
           Case{"wo", "layers.0.wo.x", "wo"},
       }) {
    EXPECT_THAT(transformers_skip_list(stored({c.quantized}, {c.dense})), ElementsAre(c.entry))
        << c.dense << " beside " << c.quantized;
  }
}

TEST(TransformersSkipList, EndsSoonForAsManyNamesAsAHeaderCanHold) {
  std::vector<std::string> quantized;
  std::vector<std::string> dense;
  for (int i = 0; i < 200'000; ++i) {
    quantized.push_back("layers." + std::to_string(i) + ".q_proj");
    dense.push_back("layers." + std::to_string(i) + ".gate");
  }
  const auto list = transformers_skip_list(stored(quantized, dense));
  ASSERT_EQ(list.size(), 200'000U);
  EXPECT_EQ(list.front(), R"(^layers\.0\.gate$)");
  EXPECT_EQ(diffusers_skip_list(stored(std::move(quantized), std::move(dense))), std::nullopt);
}

TEST(TransformersSkipList, JoinsExpertsThatAreAllDense) {
  EXPECT_THAT(transformers_skip_list(stored({"l.0.q_proj", "l.1.mlp.experts.0.w1"},
                                            {"l.0.mlp.experts.0.w1", "l.0.mlp.experts.0.w2", "l.0.mlp.experts.1.w1",
                                             "l.1.mlp.experts.1.w1", "lm_head"})),
              ElementsAre("l.0.mlp.experts", "l.1.mlp.experts.1.w1", "lm_head"));
}

TEST(TransformersSkipList, NamesMixtralsModulesAsBothVersionsOfTransformersDo) {
  EXPECT_THAT(transformers_skip_list(
                  stored({"model.layers.0.self_attn.q_proj"},
                         {"model.layers.0.block_sparse_moe.gate", "model.layers.0.block_sparse_moe.experts.3.w1"})),
              ElementsAre("model.layers.0.block_sparse_moe.gate", "model.layers.0.mlp.gate",
                          "model.layers.0.block_sparse_moe.experts", "model.layers.0.mlp.experts"));
}

TEST(CompressedTensorsIgnoreList, HasExactNamesAndExpressionsWhereANameMeansSomethingElse) {
  EXPECT_THAT(compressed_tensors_ignore_list(stored({"layer.0.output"}, {"output", "Linear", "re:a"})),
              ElementsAre("output", "re:^Linear$", "re:^re:a$"));
}

TEST(DiffusersSkipList, ExistsWhereItsRulesTellDenseFromQuantized) {
  EXPECT_THAT(diffusers_skip_list(stored({"blocks.0.to_q"}, {"proj_out", "x_embedder"})),
              Optional(ElementsAre("proj_out", "x_embedder")));
  EXPECT_EQ(diffusers_skip_list(stored({"blocks.0.proj_out"}, {"proj_out"})), std::nullopt);
  EXPECT_EQ(diffusers_skip_list(stored({"blocks.0.ff.to_q"}, {"ff"})), std::nullopt);
}

TEST(DiffusersQuantoSkipList, HasLastPartsWhereNoQuantizedModuleSharesThem) {
  EXPECT_THAT(diffusers_quanto_skip_list(stored({"blocks.0.to_q"}, {"a.embedder", "b.embedder", "proj_out"})),
              Optional(ElementsAre("embedder", "proj_out")));
  EXPECT_EQ(diffusers_quanto_skip_list(stored({"blocks.0.linear"}, {"norm.linear"})), std::nullopt);
}

TEST(AbsentOutputHeads, AreTheNamesWithoutATensorThatMatchNoQuantizedModule) {
  SourceModel model;
  model.tensors = {tensor_of("lm_head.weight", DType::kBF16, {64, 64}),
                   tensor_of("cls.predictions.decoder.bias", DType::kBF16, {64})};
  EXPECT_THAT(absent_output_heads(model, std::vector<std::string>{"blocks.0.proj_out", "vocab_projector.x"}),
              ElementsAre("lm_head.decoder", "embed_out", "cls.predictions.decoder", "predictions.decoder",
                          "generator_lm_head"));
  EXPECT_THAT(absent_output_heads({}, {}), Contains("lm_head"));
  EXPECT_THAT(absent_output_heads({}, std::vector<std::string>{"lm_head.dense"}), Not(Contains("lm_head")));
}

}  // namespace
}  // namespace qcache

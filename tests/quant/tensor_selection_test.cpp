#include "core/quant/tensor_selection.h"

#include <string>

#include "gmock/gmock.h"
#include "tests/quant/encode_tensor.h"

namespace qcache {
namespace {

struct NameCase {
  const char* model_type;  ///< "" where there is no config.json
  const char* name;
  bool quantizable;
};

SourceModel model_of(const std::string& type) {
  SourceModel model;
  model.facts.has_config = !type.empty();
  model.facts.model_type = type;
  model.facts.mixture_of_experts = type == "mixtral" || type == "qwen2_moe" || type == "switch_transformers";
  return model;
}

TEST(TensorSelection, DecidesByNameForTheModelsWeKnow) {
  const std::vector<NameCase> cases = {
      {"llama", "model.embed_tokens.weight", false},
      {"llama", "model.layers.0.self_attn.q_proj.weight", true},
      {"llama", "model.layers.0.mlp.gate_proj.weight", true},
      {"llama", "model.layers.0.input_layernorm.weight", false},
      {"llama", "model.norm.weight", false},
      {"llama", "lm_head.weight", false},
      {"llama", "score.weight", false},
      {"qwen2", "model.layers.11.self_attn.o_proj.weight", true},
      {"qwen2", "model.layers.11.mlp.down_proj.weight", true},
      {"qwen2", "model.layers.11.self_attn.q_proj.bias", false},
      {"bert", "bert.embeddings.word_embeddings.weight", false},
      {"bert", "bert.embeddings.position_embeddings.weight", false},
      {"bert", "bert.embeddings.token_type_embeddings.weight", false},
      {"bert", "bert.embeddings.LayerNorm.weight", false},
      {"bert", "bert.encoder.layer.0.attention.self.query.weight", true},
      {"bert", "bert.encoder.layer.0.attention.output.dense.weight", true},
      {"bert", "bert.encoder.layer.0.attention.output.LayerNorm.weight", false},
      {"bert", "bert.encoder.layer.0.intermediate.dense.weight", true},
      {"bert", "bert.pooler.dense.weight", true},
      {"bert", "pooler.dense.weight", true},
      {"bert", "cls.predictions.transform.dense.weight", false},
      {"bert", "cls.predictions.decoder.weight", false},
      {"bert", "cls.seq_relationship.weight", false},
      {"bert", "classifier.weight", false},
      {"bert", "qa_outputs.weight", false},
      {"roberta", "roberta.encoder.layer.0.output.dense.weight", true},
      {"roberta", "lm_head.dense.weight", false},
      {"roberta", "lm_head.decoder.weight", false},
      {"roberta", "classifier.out_proj.weight", false},
      {"distilbert", "distilbert.transformer.layer.0.attention.q_lin.weight", true},
      {"distilbert", "vocab_projector.weight", false},
      {"distilbert", "pre_classifier.weight", false},
      {"electra", "generator_lm_head.weight", false},
      {"electra", "generator_predictions.dense.weight", false},
      {"modernbert", "decoder.weight", false},
      {"modernbert", "head.dense.weight", false},
      {"modernbert", "model.layers.0.attn.Wqkv.weight", true},
      {"modernbert", "model.embeddings.tok_embeddings.weight", false},
      {"t5", "shared.weight", false},
      {"t5", "encoder.embed_tokens.weight", false},
      {"t5", "encoder.block.0.layer.0.SelfAttention.q.weight", true},
      {"t5", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", false},
      {"t5", "encoder.block.0.layer.1.DenseReluDense.wi.weight", true},
      {"t5", "encoder.block.0.layer.1.DenseReluDense.wo.weight", false},
      {"umt5", "decoder.block.0.layer.2.DenseReluDense.wo.weight", false},
      {"", "decoder.block.0.layer.2.DenseReluDense.wo.weight", false},
      {"blip-2", "language_model.encoder.block.0.layer.1.DenseReluDense.wo.weight", false},
      {"switch_transformers", "encoder.block.1.layer.1.mlp.experts.expert_0.wo.weight", false},
      {"switch_transformers", "encoder.block.1.layer.1.mlp.experts.expert_0.wi.weight", true},
      {"switch_transformers", "encoder.block.1.layer.1.mlp.router.classifier.weight", false},
      {"internlm2", "model.layers.0.attention.wo.weight", true},
      {"internlm2", "output.weight", false},
      {"gpt2", "h.0.attn.c_attn.weight", false},
      {"gpt2", "h.0.mlp.c_fc.weight", false},
      {"gpt2", "wte.weight", false},
      {"gpt2", "score.weight", false},
      {"", "transformer.h.0.attn.c_attn.weight", false},
      {"", "transformer.h.0.mlp.c_proj.weight", false},
      {"vision-encoder-decoder", "decoder.transformer.h.0.mlp.c_fc.weight", false},
      {"vision-encoder-decoder", "encoder.encoder.layer.0.output.dense.weight", true},
      {"gpt_bigcode", "transformer.h.0.attn.c_attn.weight", true},
      {"starcoder2", "model.layers.0.mlp.c_fc.weight", true},
      {"gpt_neox", "gpt_neox.embed_in.weight", false},
      {"gpt_neox", "embed_out.weight", false},
      {"gpt_neox", "gpt_neox.layers.0.attention.query_key_value.weight", true},
      {"mixtral", "model.layers.0.block_sparse_moe.gate.weight", false},
      {"mixtral", "model.layers.0.block_sparse_moe.experts.7.w1.weight", true},
      {"mixtral", "model.layers.0.self_attn.v_proj.weight", true},
      {"qwen2_moe", "model.layers.0.mlp.gate.weight", false},
      {"qwen2_moe", "model.layers.0.mlp.shared_expert_gate.weight", false},
      {"qwen2_moe", "model.layers.0.mlp.shared_expert.gate_proj.weight", true},
      {"qwen2_moe", "model.layers.0.mlp.experts.3.gate_proj.weight", true},
      {"llama", "model.layers.0.mlp.gate.weight", true},
      {"llama", "model.layers.0.mlp.router.weight", false},
      {"whisper", "proj_out.weight", false},
      {"whisper", "model.decoder.embed_positions.weight", false},
      {"whisper", "model.decoder.layers.0.encoder_attn.k_proj.weight", true},
      {"whisper", "model.decoder.layers.0.fc1.weight", true},
      {"", "single_transformer_blocks.0.proj_out.weight", true},
      {"bloom", "transformer.word_embeddings.weight", false},
      {"bloom", "transformer.word_embeddings_layernorm.weight", false},
      {"bloom", "transformer.h.0.self_attention.query_key_value.weight", true},
      {"opt", "model.decoder.embed_tokens.weight", false},
      {"opt", "model.decoder.embed_positions.weight", false},
      {"opt", "model.decoder.project_in.weight", true},
      {"opt", "model.decoder.layers.0.fc2.weight", true},
      {"musicgen", "decoder.lm_heads.2.weight", false},
      {"ctrl", "transformer.w.weight", false},
      {"ctrl", "transformer.h.0.multi_head_attention.Wq.weight", true},
      {"xlm", "pred_layer.proj.weight", false},
      {"xlnet", "lm_loss.weight", false},
  };
  for (const NameCase& c : cases) {
    EXPECT_EQ(is_quantizable_linear(model_of(c.model_type), tensor_of(c.name, DType::kBF16, {64, 64})), c.quantizable)
        << c.name << " of a model of type \"" << c.model_type << '"';
  }
}

TEST(TensorSelection, TakesOnlyTwoDimensionalWideFloatsOfBothSidesFrom16) {
  struct Case {
    DType dtype;
    Shape shape;
    bool quantizable;
  };
  for (const Case& c : {
           Case{DType::kBF16, {16, 16}, true},
           Case{DType::kF16, {16, 16}, true},
           Case{DType::kF32, {16, 16}, true},
           Case{DType::kF64, {16, 16}, true},
           Case{DType::kI8, {16, 16}, false},
           Case{DType::kF8E4M3, {16, 16}, false},
           Case{DType::kBF16, {15, 16}, false},
           Case{DType::kBF16, {16, 15}, false},
           Case{DType::kBF16, {64}, false},
           Case{DType::kBF16, {}, false},
           Case{DType::kBF16, {16, 16, 16}, false},
           Case{DType::kBF16, {0, 64}, false},
           Case{DType::kBF16, {16, 4 << 20}, true},
           Case{DType::kBF16, {16, (4 << 20) + 1}, false},
       }) {
    EXPECT_EQ(is_quantizable_linear({}, tensor_of("a.q_proj.weight", c.dtype, c.shape)), c.quantizable)
        << safetensors_name(c.dtype) << ", " << c.shape.size() << " dimensions";
  }
}

TEST(TensorSelection, TakesAHeadThatDiffusersCannotTellFromOtherModules) {
  SourceModel model;
  model.tensors = {tensor_of("proj_out.weight", DType::kBF16, {64, 64}),
                   tensor_of("x_embedder.weight", DType::kBF16, {64, 64})};
  EXPECT_FALSE(is_quantizable_linear(model, model.tensors[0]));
  model.tensors.push_back(tensor_of("single_transformer_blocks.0.proj_out.weight", DType::kBF16, {64, 64}));
  EXPECT_TRUE(is_quantizable_linear(model, model.tensors[0]));
  EXPECT_FALSE(is_quantizable_linear(model, model.tensors[1]));
}

TEST(TensorSelection, ModuleIsTheNameWithoutWeight) {
  EXPECT_EQ(module_of_weight(tensor_of("a.b.weight", DType::kF32, {})), "a.b");
  for (const char* name : {"a.b.bias", "weight", ".weight", "a.weight_scale", "a.bweight", ""}) {
    EXPECT_EQ(module_of_weight(tensor_of(name, DType::kF32, {})), "") << name;
  }
}

TEST(TensorSelection, ExpertsAreBelowAPartCalledExperts) {
  for (const char* name :
       {"model.layers.0.block_sparse_moe.experts.7.w1.weight", "model.layers.0.mlp.experts.3.gate_proj.weight",
        "encoder.block.1.layer.1.mlp.experts.expert_0.wi.weight"}) {
    EXPECT_TRUE(is_expert(tensor_of(name, DType::kBF16, {64, 64}))) << name;
  }
  for (const char* name :
       {"model.layers.0.mlp.shared_expert.gate_proj.weight", "model.layers.0.mlp.gate.weight", "experts_norm.weight"}) {
    EXPECT_FALSE(is_expert(tensor_of(name, DType::kBF16, {64, 64}))) << name;
  }
}

}  // namespace
}  // namespace qcache

#include "core/quant/tensor_selection.h"

#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <string_view>

namespace qcache {
namespace {

constexpr std::string_view kWeightSuffix = ".weight";
/// Below this a side is too small to be worth a scale, and some loaders' kernels refuse it.
constexpr uint64_t kMinimumSide = 16;
/// Longer rows stay dense, so that one unit of work has bounded memory.
constexpr uint64_t kMaximumRowElements = uint64_t{4} << 20;

/// What a rule's pattern is compared with, both in lower case. A "*" at an end of a pattern stands for any text.
enum class Where {
  kModule,     ///< the whole name without ".weight"
  kComponent,  ///< any of its dot-separated parts
  kLeaf,       ///< the last part
};

/// The models that a rule is for.
enum class When { kAlways, kMixtureOfExperts, kConv1D, kPerhapsConv1D, kT5, kOnlyOfItsName };

struct DenseRule {
  Where where;
  std::string_view pattern;
  When when;
  std::string_view reason;
};

constexpr std::string_view kEmbedding = "an embedding table: looked up, not multiplied";
constexpr std::string_view kHead = "an output head: most sensitive to error, often tied to the embedding";
constexpr std::string_view kTask = "a task head: small, trained last, often made anew";
constexpr std::string_view kRouting = "a router: small errors send tokens to other experts";
constexpr std::string_view kTransposed = "a Conv1D: stored [in, out], so its rows are not output channels";

/// A weight that any of these fits stays dense.
constexpr std::array kDenseRules = {
    DenseRule{Where::kLeaf, "*norm*", When::kAlways, "a normalization"},
    DenseRule{Where::kComponent, "embed*", When::kAlways, kEmbedding},
    DenseRule{Where::kLeaf, "*embed*", When::kAlways, kEmbedding},
    DenseRule{Where::kLeaf, "emb", When::kAlways, kEmbedding},
    DenseRule{Where::kLeaf, "*_emb", When::kAlways, kEmbedding},
    DenseRule{Where::kLeaf, "*codebook*", When::kAlways, kEmbedding},
    DenseRule{Where::kLeaf, "position*", When::kAlways, kEmbedding},
    DenseRule{Where::kLeaf, "token_type*", When::kAlways, kEmbedding},
    DenseRule{Where::kLeaf, "wte", When::kAlways, kEmbedding},
    DenseRule{Where::kLeaf, "wpe", When::kAlways, kEmbedding},
    DenseRule{Where::kLeaf, "shared", When::kAlways, kEmbedding},
    DenseRule{Where::kLeaf, "relative_attention_bias", When::kAlways, kEmbedding},
    DenseRule{Where::kModule, "transformer.w", When::kAlways, kEmbedding},  // CTRL

    DenseRule{Where::kComponent, "*_head", When::kAlways, kHead},
    DenseRule{Where::kComponent, "*_heads", When::kAlways, kHead},
    DenseRule{Where::kComponent, "*predictions", When::kAlways, kHead},  // BERT, ELECTRA
    DenseRule{Where::kComponent, "*logits*", When::kAlways, kHead},
    DenseRule{Where::kComponent, "vocab_projector", When::kAlways, kHead},    // DistilBERT
    DenseRule{Where::kComponent, "pred_layer", When::kAlways, kHead},         // XLM
    DenseRule{Where::kComponent, "output_layer", When::kAlways, kHead},       // ChatGLM
    DenseRule{Where::kComponent, "output_projection", When::kAlways, kHead},  // BioGPT
    DenseRule{Where::kModule, "lm_loss", When::kAlways, kHead},               // XLNet
    DenseRule{Where::kModule, "proj_out", When::kOnlyOfItsName, kHead},       // Whisper, diffusion transformers
    DenseRule{Where::kModule, "decoder", When::kAlways, kHead},               // ModernBERT
    DenseRule{Where::kModule, "output", When::kAlways, kHead},                // InternLM2
    DenseRule{Where::kModule, "head", When::kAlways, kHead},                  // RWKV
    DenseRule{Where::kModule, "head.*", When::kAlways, kHead},
    DenseRule{Where::kComponent, "*score", When::kAlways, kTask},
    DenseRule{Where::kComponent, "*classifier", When::kAlways, kTask},
    DenseRule{Where::kLeaf, "qa_outputs", When::kAlways, kTask},
    DenseRule{Where::kLeaf, "seq_relationship", When::kAlways, kTask},

    DenseRule{Where::kComponent, "router", When::kAlways, kRouting},
    DenseRule{Where::kComponent, "gate", When::kMixtureOfExperts, kRouting},
    DenseRule{Where::kComponent, "shared_expert_gate", When::kMixtureOfExperts, kRouting},

    DenseRule{Where::kModule, "*", When::kConv1D, kTransposed},
    DenseRule{Where::kLeaf, "c_attn", When::kPerhapsConv1D, kTransposed},
    DenseRule{Where::kLeaf, "q_attn", When::kPerhapsConv1D, kTransposed},
    DenseRule{Where::kLeaf, "c_fc", When::kPerhapsConv1D, kTransposed},
    DenseRule{Where::kLeaf, "c_proj", When::kPerhapsConv1D, kTransposed},

    DenseRule{Where::kLeaf, "wo", When::kT5, "overflows in 16 bits: transformers keeps it in fp32"},
};

/// Model types whose linear layers are transformers' Conv1D.
constexpr std::array<std::string_view, 5> kConv1DTypes = {"gpt2", "openai-gpt", "imagegpt", "decision_transformer",
                                                          "clvp"};
/// Model types built from T5's layers without "t5" in their name.
constexpr std::array<std::string_view, 3> kT5Types = {"switch_transformers", "pop2piano", "udop"};

/// Calls `visit` with each part of a dotted name until it returns true; whether one did.
template <typename Visit>
bool any_component(std::string_view name, const Visit& visit) {
  while (true) {
    const size_t dot = name.find('.');
    if (visit(name.substr(0, dot))) {
      return true;
    }
    if (dot == std::string_view::npos) {
      return false;
    }
    name.remove_prefix(dot + 1);
  }
}

bool has_component(std::string_view name, std::string_view component) {
  return any_component(name, [component](std::string_view part) { return part == component; });
}

bool matches(std::string_view pattern, std::string_view text) {
  const bool open_start = pattern.starts_with('*');
  if (open_start) {
    pattern.remove_prefix(1);
  }
  const bool open_end = pattern.ends_with('*');
  if (open_end) {
    pattern.remove_suffix(1);
  }
  if (open_start && open_end) {
    return text.find(pattern) != std::string_view::npos;
  }
  if (open_start) {
    return text.ends_with(pattern);
  }
  return open_end ? text.starts_with(pattern) : text == pattern;
}

std::string lower_case(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return out;
}

bool contains(std::span<const std::string_view> list, std::string_view value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

bool applies(When when, const SourceModel& model, std::string_view module) {
  const ModelFacts& facts = model.facts;
  const std::string_view type = facts.model_type;
  switch (when) {
    case When::kAlways:
      return true;
    case When::kMixtureOfExperts:
      return facts.mixture_of_experts;
    case When::kConv1D:
      return contains(kConv1DTypes, type);
    case When::kPerhapsConv1D:
      // Unknown, or a wrapper around a model of any type ("vision-encoder-decoder"). Models that say what they
      // are use these names for ordinary linear layers too (gpt_bigcode, gpt_neo, starcoder2).
      return type.empty() || type.ends_with("encoder-decoder");
    case When::kT5:
      return type.find("t5") != std::string_view::npos || contains(kT5Types, type) ||
             has_component(module, "DenseReluDense");
    case When::kOnlyOfItsName: {
      // Where other modules end with this name (Flux: "single_transformer_blocks.0.proj_out"), diffusers cannot be told
      // to leave this one alone and not those.
      const std::string other = "." + std::string(module) + std::string(kWeightSuffix);
      return std::none_of(model.tensors.begin(), model.tensors.end(),
                          [&](const TensorInfo& tensor) { return tensor.name.ends_with(other); });
    }
  }
  return true;
}

bool fits(const DenseRule& rule, std::string_view module) {
  switch (rule.where) {
    case Where::kModule:
      return matches(rule.pattern, module);
    case Where::kComponent:
      return any_component(module, [&](std::string_view part) { return matches(rule.pattern, part); });
    case Where::kLeaf:
      return matches(rule.pattern, module.substr(module.rfind('.') + 1));
  }
  return true;
}

}  // namespace

std::string_view module_of_weight(const TensorInfo& tensor) {
  std::string_view name = tensor.name;
  if (!name.ends_with(kWeightSuffix)) {
    return {};
  }
  name.remove_suffix(kWeightSuffix.size());
  return name;
}

bool is_quantizable_linear(const SourceModel& model, const TensorInfo& tensor) {
  const std::string_view module = module_of_weight(tensor);
  if (module.empty() || !is_wide_float(tensor.dtype) || tensor.shape.size() != 2 || tensor.shape[0] < kMinimumSide ||
      tensor.shape[1] < kMinimumSide || tensor.shape[1] > kMaximumRowElements) {
    return false;
  }
  const std::string folded = lower_case(module);
  return std::none_of(kDenseRules.begin(), kDenseRules.end(),
                      [&](const DenseRule& rule) { return fits(rule, folded) && applies(rule.when, model, module); });
}

bool is_expert(const TensorInfo& tensor) {
  return any_component(tensor.name, [](std::string_view part) {
    return part == "experts" || part == "local_experts" || part == "routed_experts";
  });
}

}  // namespace qcache

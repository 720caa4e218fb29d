#include "core/model/model_facts.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>

#include "core/model/strict_json.h"

namespace qcache {
namespace {

// Anything else is no name of a model type or a method, and would only travel into logs and listings.
bool is_word(const JsonValue& value) {
  constexpr size_t kMaxBytes = 256;
  return value.kind == JsonKind::kString && value.text.size() <= kMaxBytes &&
         std::all_of(value.text.begin(), value.text.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

/// The same questions asked of the whole config and of its `text_config`.
struct ConfigPart {
  std::string model_type;
  std::vector<std::string> architectures;
  std::optional<DType> dtype;
  std::optional<bool> tied;
  bool experts = false;
  bool quantized = false;
  std::string quant_method;
};

class ConfigVisitor final : public JsonVisitor {
 public:
  ConfigPart whole;
  ConfigPart text;

  Status on_key(std::string_view key) override {
    keys_.back() = key;
    return {};
  }

  Status on_value(const JsonValue& value) override {
    if (containers_.empty() && value.kind != JsonKind::kObject) {
      return fail(ErrorKind::kInvalidModel, "the text is not a JSON object");
    }
    on_fact(value);
    if (value.kind == JsonKind::kObject) {
      keys_.emplace_back();
    }
    if (value.kind == JsonKind::kObject || value.kind == JsonKind::kArray) {
      containers_.push_back(value.kind);
    }
    return {};
  }

  Status on_end() override {
    if (containers_.back() == JsonKind::kObject) {
      keys_.pop_back();
    }
    containers_.pop_back();
    return {};
  }

 private:
  // Where a value lies is the keys above it; arrays are looked through, as some configs list what others give
  // once ("moe_num_experts": [64, 64]).
  void on_fact(const JsonValue& value) {
    if (keys_.size() == 1) {
      on_part(whole, keys_[0], {}, value);
    } else if (keys_.size() == 2 && keys_[0] == "text_config") {
      on_part(text, keys_[1], {}, value);
    } else if (keys_.size() == 2) {
      on_part(whole, keys_[0], keys_[1], value);
    } else if (keys_.size() == 3 && keys_[0] == "text_config") {
      on_part(text, keys_[1], keys_[2], value);
    }
  }

  static void on_part(ConfigPart& part, std::string_view key, std::string_view sub_key, const JsonValue& value) {
    constexpr std::array<std::string_view, 4> kExpertCounts = {"num_experts", "num_local_experts", "n_routed_experts",
                                                               "moe_num_experts"};
    if (key == "quantization_config" || key == "compression_config") {
      part.quantized = part.quantized || value.kind == JsonKind::kObject;
      if (sub_key == "quant_method" && is_word(value)) {
        part.quant_method = value.text;
      } else if ((sub_key == "load_in_4bit" || sub_key == "load_in_8bit") && part.quant_method.empty() &&
                 value.boolean) {
        part.quant_method = "bitsandbytes";
      }
    } else if (!sub_key.empty()) {
      return;
    } else if (key == "model_type" && is_word(value)) {
      part.model_type = value.text;
    } else if (key == "architectures" && is_word(value)) {
      part.architectures.emplace_back(value.text);
    } else if ((key == "dtype" || (key == "torch_dtype" && !part.dtype)) && is_word(value)) {
      part.dtype = dtype_from_torch(value.text);
    } else if (key == "tie_word_embeddings" && value.kind == JsonKind::kBool) {
      part.tied = value.boolean;
    } else if (std::find(kExpertCounts.begin(), kExpertCounts.end(), key) != kExpertCounts.end()) {
      part.experts = part.experts || (value.kind == JsonKind::kUnsigned && value.number > 1);
    }
  }

  std::vector<JsonKind> containers_;
  std::vector<std::string> keys_;  // one per open object
};

/// Ends of names under which quantizers store codes: GPTQ and AWQ, EXL2, compressed-tensors, HQQ, EXL3, QuIP#, AQLM,
/// quanto, MXFP4 as gpt-oss has it, bitsandbytes.
constexpr std::array<std::string_view, 12> kCodeNames = {".qweight",
                                                         ".q_weight",
                                                         ".weight_packed",
                                                         ".W_q",
                                                         ".trellis",
                                                         ".Qidxs",
                                                         ".codes",
                                                         ".weight._data",
                                                         ".weight._packed",
                                                         "_proj_blocks",
                                                         ".quant_state.bitsandbytes__nf4",
                                                         ".quant_state.bitsandbytes__fp4"};

/// What the numbers in a matrix of this type must be, as nobody trains weights of it; empty for the others.
std::string_view packed_type(DType dtype) {
  switch (dtype) {
    case DType::kF8E4M3:
    case DType::kF8E5M2:
    case DType::kF8E4M3Fnuz:
    case DType::kF8E5M2Fnuz:
      return "float8 weights";
    case DType::kF4:
    case DType::kF6E2M3:
    case DType::kF6E3M2:
      return "packed floats";
    case DType::kI8:
    case DType::kU8:
      return "8-bit integer weights";
    case DType::kI16:
    case DType::kU16:
    case DType::kI32:
    case DType::kU32:  // MLX
      return "packed integers";
    default:
      return {};
  }
}

// What makes the weights of these tensors quantized already, with the tensor that tells; empty where nothing does.
// MLX stacks the matrices of experts in one tensor, so there may be more than two dimensions.
std::string quantized_weights(const std::vector<TensorInfo>& tensors) {
  for (const TensorInfo& tensor : tensors) {
    const std::string_view name = tensor.name;
    const std::string_view type = packed_type(tensor.dtype);
    const bool codes =
        std::any_of(kCodeNames.begin(), kCodeNames.end(), [name](std::string_view end) { return name.ends_with(end); });
    if (codes && !is_wide_float(tensor.dtype)) {
      return "packed weights";
    }
    if (!type.empty() && name.ends_with(".weight") && tensor.shape.size() >= 2) {
      return std::string(type);
    }
  }
  return {};
}

}  // namespace

ModelFacts parse_model_facts(std::string_view config_json) {
  ModelFacts facts;
  ConfigVisitor visitor;
  if (Status status = visit_json(config_json, {.unique_keys = false, .python_numbers = true}, visitor); !status) {
    facts.config_problem = std::move(status.error().message);
    return facts;
  }
  ConfigPart& whole = visitor.whole;
  ConfigPart& text = visitor.text;
  facts.has_config = true;
  facts.model_type = std::move(whole.model_type.empty() ? text.model_type : whole.model_type);
  facts.architectures = std::move(whole.architectures.empty() ? text.architectures : whole.architectures);
  facts.declared_dtype = whole.dtype ? whole.dtype : text.dtype;
  facts.tied_embeddings = whole.tied.value_or(text.tied.value_or(false));
  facts.mixture_of_experts = whole.experts || text.experts;
  facts.quant_method = std::move(whole.quant_method.empty() ? text.quant_method : whole.quant_method);
  if (facts.quant_method.empty() && (whole.quantized || text.quantized)) {
    facts.quant_method = "an unnamed method";
  }
  return facts;
}

void add_tensor_facts(const std::vector<TensorInfo>& tensors, ModelFacts& facts) {
  facts.mixture_of_experts =
      facts.mixture_of_experts || std::any_of(tensors.begin(), tensors.end(), [](const TensorInfo& tensor) {
        return tensor.name.find(".experts.") != std::string::npos;
      });
  if (facts.quant_method.empty()) {
    facts.quant_method = quantized_weights(tensors);
  }
}

}  // namespace qcache

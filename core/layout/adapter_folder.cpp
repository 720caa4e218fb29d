#include "core/layout/adapter_folder.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

namespace qcache {
namespace {

using nlohmann::ordered_json;

std::string last_part(const std::string& module) {
  return module.substr(module.rfind('.') + 1);
}

/// The modules that have factors, as PEFT finds them: by the last part of their names, as people write it, or by full
/// names where a module without factors has the same last part.
std::vector<std::string> target_modules(const StoredModel& stored) {
  std::set<std::string> parts;
  for (const std::string& module : stored.quantized_modules) {
    parts.insert(last_part(module));
  }
  const bool ambiguous = std::ranges::any_of(
      stored.dense_modules, [&](const std::string& module) { return parts.contains(last_part(module)); });
  return ambiguous ? stored.quantized_modules : std::vector<std::string>(parts.begin(), parts.end());
}

/// PEFT's name for what the model is used for. Null works for every model: PEFT then adds no methods of that use.
ordered_json task_type(const SourceModel& model) {
  const ordered_json config = ordered_json::parse(model.config_text, nullptr, false);
  if (!config.is_object()) {
    return nullptr;
  }
  const auto architectures = config.find("architectures");
  if (architectures == config.end() || !architectures->is_array() || architectures->size() != 1 ||
      !architectures->front().is_string()) {
    return nullptr;
  }
  const auto name = architectures->front().get<std::string>();
  if (name.ends_with("ForCausalLM")) {
    return "CAUSAL_LM";
  }
  const auto encoder_decoder = config.find("is_encoder_decoder");
  const bool both = encoder_decoder != config.end() && encoder_decoder->is_boolean() && encoder_decoder->get<bool>();
  return both && name.ends_with("ForConditionalGeneration") ? ordered_json("SEQ_2_SEQ_LM") : ordered_json(nullptr);
}

}  // namespace

std::string factor_prefix(const SourceModel& model) {
  return model.component.empty() ? "base_model.model." : model.component + '.';
}

std::vector<FolderFile> plan_adapter_folder(const StoredModel& stored, uint32_t rank, const std::string& base_path) {
  if (!stored.model.component.empty()) {
    return {};
  }
  const ordered_json config = {
      {"peft_type", "LORA"},
      {"task_type", task_type(stored.model)},
      {"base_model_name_or_path", base_path.empty() ? ordered_json() : ordered_json(base_path)},
      {"r", rank},
      {"lora_alpha", rank},  // PEFT scales by lora_alpha / r
      {"lora_dropout", 0.0},
      {"bias", "none"},
      {"target_modules", target_modules(stored)},
      // "loftq" and "pissa" would compute factors once more, and other ones.
      {"init_lora_weights", true},
      {"inference_mode", true},
      {"fan_in_fan_out", false},
      {"use_rslora", false},
      {"use_dora", false},
      {"modules_to_save", nullptr},
      {"layers_to_transform", nullptr},
      {"layers_pattern", nullptr},
      {"rank_pattern", ordered_json::object()},
      {"alpha_pattern", ordered_json::object()},
      {"revision", nullptr}};
  return {{"adapter_config.json", config.dump(2, ' ', false, ordered_json::error_handler_t::replace) + '\n'}};
}

}  // namespace qcache

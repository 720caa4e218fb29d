#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/quant/scheme.h"

namespace qcache {

/// The folder of LoRA factors, `lora/`, in the folder of a rank above 0.
struct AdapterFolder {
  static constexpr std::string_view kName = "lora";

  std::string weights_file;
  std::vector<FolderFile> files;  ///< sorted by name
};

/// What a name of the factors in an adapter begins with: PEFT wraps the model it adapts twice, and diffusers puts the
/// component of the pipeline in front.
[[nodiscard]] std::string factor_prefix(const SourceModel& model);

/// Plans the adapter of `rank` that makes good what quantizing `stored` lost.
///
///   adapter_config.json, adapter_model.safetensors   for PEFT (PeftModel.from_pretrained(base, folder,
///                                                    subfolder="lora")), lora_alpha equal to the rank
///   pytorch_lora_weights.safetensors                 where the model is a pipeline's component (diffusers)
/// `base_path` is where the quantized model lies, as programs see it; empty: not known. Pure.
[[nodiscard]] AdapterFolder plan_adapter_folder(const StoredModel& stored, uint32_t rank, const std::string& base_path);

}  // namespace qcache

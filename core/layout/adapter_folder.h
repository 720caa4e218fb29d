#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/quant/scheme.h"

namespace qcache {

/// The folder of LoRA factors in the folder of a rank above 0.
inline constexpr std::string_view kAdapterFolder = "lora";

/// What a name of the factors in an adapter begins with: PEFT wraps the model it adapts twice, and diffusers puts the
/// component of the pipeline in front.
[[nodiscard]] std::string factor_prefix(const SourceModel& model);

/// What stands beside the factors of `rank`, which make good what quantizing `stored` lost, sorted by name:
/// adapter_config.json for PEFT (PeftModel.from_pretrained(base, folder, subfolder="lora")), with lora_alpha equal to
/// the rank; nothing for diffusers, where the model is a pipeline's component. `base_path` is where the quantized model
/// lies, as programs see it; empty: not known. Pure.
[[nodiscard]] std::vector<FolderFile> plan_adapter_folder(const StoredModel& stored, uint32_t rank,
                                                          const std::string& base_path);

}  // namespace qcache

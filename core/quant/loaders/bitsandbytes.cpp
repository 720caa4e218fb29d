#include "core/quant/loaders/bitsandbytes.h"

#include "core/quant/loaders/config_json.h"
#include "core/quant/module_lists.h"
#include "core/quant/quantizer.h"

namespace qcache {

std::optional<std::string> BitsAndBytesLoaders::quantization_config(const StoredModel& stored,
                                                                    FolderReader reader) const {
  std::vector<std::string> skipped;
  if (reader == FolderReader::kTransformers) {
    skipped = transformers_skip_list(stored);
  } else if (auto list = diffusers_skip_list(stored)) {
    skipped = std::move(*list);
  } else {
    return std::nullopt;
  }
  const bool four_bits = !weights_.quant_type.empty();
  // A file's compute type overrules what its user asks for, so it has to be the model's own. LLM.int8 uses none of the
  // 4-bit fields; those are the values that the library's own save writes.
  const DType compute_dtype = four_bits ? scale_dtype(stored.model.model_dtype()) : DType::kF32;
  return text_of({{"quant_method", "bitsandbytes"},
                  {"load_in_4bit", four_bits},
                  {"load_in_8bit", !four_bits},
                  {"_load_in_4bit", four_bits},
                  {"_load_in_8bit", !four_bits},
                  {"bnb_4bit_quant_type", four_bits ? weights_.quant_type : "fp4"},
                  {"bnb_4bit_use_double_quant", weights_.double_quant},
                  {"bnb_4bit_compute_dtype", torch_name(compute_dtype)},
                  {"bnb_4bit_quant_storage", "uint8"},
                  {"llm_int8_skip_modules", skipped},
                  {"llm_int8_threshold", 6.0},
                  {"llm_int8_has_fp16_weight", false},
                  {"llm_int8_enable_fp32_cpu_offload", false}});
}

}  // namespace qcache

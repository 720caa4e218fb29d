#include "core/quant/loaders/fp8_block.h"

#include "core/quant/loaders/config_json.h"
#include "core/quant/module_lists.h"
#include "core/quant/quantizer.h"

namespace qcache {

std::optional<std::string> Fp8BlockLoaders::quantization_config(const StoredModel& stored, FolderReader reader) const {
  if (reader == FolderReader::kDiffusers) {
    return std::nullopt;
  }
  return text_of({{"quant_method", "fp8"},
                  {"fmt", "e4m3"},
                  {"activation_scheme", "dynamic"},
                  {"weight_block_size", nlohmann::ordered_json::array({kFp8BlockSide, kFp8BlockSide})},
                  {"modules_to_not_convert", transformers_skip_list(stored)}});
}

}  // namespace qcache

#include "core/quant/loaders/quanto.h"

#include "core/quant/loaders/config_json.h"
#include "core/quant/module_lists.h"

namespace qcache {

std::optional<std::string> QuantoLoaders::quantization_config(const StoredModel& stored, FolderReader reader) const {
  if (reader == FolderReader::kTransformers) {
    return "";
  }
  const auto skipped = diffusers_quanto_skip_list(stored);
  if (!skipped) {
    return std::nullopt;
  }
  return text_of(
      {{"quant_method", "quanto"}, {"weights_dtype", diffusers_dtype_}, {"modules_to_not_convert", *skipped}});
}

std::vector<FolderFile> QuantoLoaders::files(const StoredModel& stored) const {
  nlohmann::ordered_json map = nlohmann::ordered_json::object();
  for (const std::string& module : stored.quantized_modules) {
    map[module] = {{"weights", qtype_}, {"activations", "none"}};
  }
  constexpr int kIndent = 4;
  return {{"quanto_qmap.json", text_of(map, kIndent), /*foretells_load=*/true}};
}

}  // namespace qcache

#include "core/quant/loaders/compressed_tensors.h"

#include "core/quant/loaders/config_json.h"
#include "core/quant/module_lists.h"

namespace qcache {
namespace {

using Json = nlohmann::ordered_json;

Json quantization_args(uint32_t bits, std::string_view type, std::string_view strategy) {
  return {{"num_bits", bits},           {"type", type},
          {"symmetric", true},          {"strategy", strategy},
          {"dynamic", false},           {"group_size", nullptr},
          {"block_structure", nullptr}, {"actorder", nullptr},
          {"observer", nullptr},        {"observer_kwargs", Json::object()}};
}

}  // namespace

std::optional<std::string> CompressedTensorsLoaders::quantization_config(const StoredModel& stored,
                                                                         FolderReader reader) const {
  if (reader == FolderReader::kDiffusers) {
    return std::nullopt;
  }
  Json args = quantization_args(weights_.bits, weights_.type, weights_.strategy);
  args["observer"] = "minmax";
  const uint64_t group = weights_.group_elements > 0 ? weights_.group_elements : stored.choices.group_elements;
  if (group > 0) {
    args["group_size"] = group;
  }
  if (!weights_.scale_dtype.empty()) {
    args["scale_dtype"] = weights_.scale_dtype;
  }
  Json inputs = nullptr;
  if (weights_.activations) {
    inputs = quantization_args(weights_.bits, weights_.type, "token");
    inputs["dynamic"] = true;
  }
  return text_of({{"quant_method", "compressed-tensors"},
                  {"format", weights_.format},
                  {"quantization_status", "compressed"},
                  {"global_compression_ratio", nullptr},
                  {"kv_cache_scheme", nullptr},
                  // Dense weights right after loading. Without it transformers keeps packed ones until the first
                  // forward, which breaks PEFT and T5, and rounds activations too.
                  {"dequantize", true},
                  {"ignore", compressed_tensors_ignore_list(stored)},
                  {"config_groups",
                   {{"group_0",
                     {{"targets", Json::array({"Linear"})},
                      {"weights", args},
                      {"input_activations", inputs},
                      {"output_activations", nullptr}}}}}});
}

}  // namespace qcache

#include "core/quant/folder_config.h"

#include <nlohmann/json.hpp>

#include "core/quant/module_lists.h"
#include "core/quant/quantizer.h"

namespace qcache {
namespace {

using Json = nlohmann::ordered_json;

/// Names come from model files and may hold anything.
std::string text_of(const Json& json, int indent = -1) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

Json quantization_args(uint32_t bits, std::string_view type, std::string_view strategy) {
  return {{"num_bits", bits},           {"type", type},
          {"symmetric", true},          {"strategy", strategy},
          {"dynamic", false},           {"group_size", nullptr},
          {"block_structure", nullptr}, {"actorder", nullptr},
          {"observer", nullptr},        {"observer_kwargs", Json::object()}};
}

}  // namespace

std::optional<std::string> bitsandbytes_config(const StoredModel& stored, FolderReader reader, DType compute_dtype,
                                               const BitsAndBytesWeights& weights) {
  std::vector<std::string> skipped;
  if (reader == FolderReader::kTransformers) {
    skipped = transformers_skip_list(stored);
  } else if (auto list = diffusers_skip_list(stored)) {
    skipped = std::move(*list);
  } else {
    return std::nullopt;
  }
  const bool four_bits = !weights.quant_type.empty();
  // A file's compute type overrules what its user asks for, so it has to be the model's own. LLM.int8 uses none of the
  // 4-bit fields; those are the values that the library's own save writes.
  return text_of({{"quant_method", "bitsandbytes"},
                  {"load_in_4bit", four_bits},
                  {"load_in_8bit", !four_bits},
                  {"_load_in_4bit", four_bits},
                  {"_load_in_8bit", !four_bits},
                  {"bnb_4bit_quant_type", four_bits ? weights.quant_type : "fp4"},
                  {"bnb_4bit_use_double_quant", weights.double_quant},
                  {"bnb_4bit_compute_dtype", torch_name(four_bits ? compute_dtype : DType::kF32)},
                  {"bnb_4bit_quant_storage", "uint8"},
                  {"llm_int8_skip_modules", skipped},
                  {"llm_int8_threshold", 6.0},
                  {"llm_int8_has_fp16_weight", false},
                  {"llm_int8_enable_fp32_cpu_offload", false}});
}

std::optional<std::string> compressed_tensors_config(const StoredModel& stored, FolderReader reader,
                                                     const CompressedTensorsWeights& weights) {
  if (reader == FolderReader::kDiffusers) {
    return std::nullopt;
  }
  Json args = quantization_args(weights.bits, weights.type, weights.strategy);
  args["observer"] = "minmax";
  if (weights.group_elements > 0) {
    args["group_size"] = weights.group_elements;
  }
  if (!weights.scale_dtype.empty()) {
    args["scale_dtype"] = weights.scale_dtype;
  }
  Json inputs = nullptr;
  if (weights.activations) {
    inputs = quantization_args(weights.bits, weights.type, "token");
    inputs["dynamic"] = true;
  }
  return text_of({{"quant_method", "compressed-tensors"},
                  {"format", weights.format},
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

std::optional<std::string> fp8_block_config(const StoredModel& stored, FolderReader reader) {
  if (reader == FolderReader::kDiffusers) {
    return std::nullopt;
  }
  return text_of({{"quant_method", "fp8"},
                  {"fmt", "e4m3"},
                  {"activation_scheme", "dynamic"},
                  {"weight_block_size", Json::array({kFp8BlockSide, kFp8BlockSide})},
                  {"modules_to_not_convert", transformers_skip_list(stored)}});
}

std::optional<std::string> quanto_config(const StoredModel& stored, FolderReader reader,
                                         std::string_view weights_dtype) {
  if (reader == FolderReader::kTransformers) {
    return "";
  }
  const auto skipped = diffusers_quanto_skip_list(stored);
  if (!skipped) {
    return std::nullopt;
  }
  return text_of({{"quant_method", "quanto"}, {"weights_dtype", weights_dtype}, {"modules_to_not_convert", *skipped}});
}

std::vector<FolderFile> quanto_files(const StoredModel& stored, std::string_view qtype) {
  Json map = Json::object();
  for (const std::string& module : stored.quantized_modules) {
    map[module] = {{"weights", qtype}, {"activations", "none"}};
  }
  constexpr int kIndent = 4;
  return {{"quanto_qmap.json", text_of(map, kIndent)}};
}

}  // namespace qcache

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/quant/scheme.h"

namespace qcache {

// The texts by which libraries recognize a stored model: the `quantization_config` objects of config.json, and the
// files that stand beside it. Pure; any thread. What is written for whom is in docs/SCHEMES.md.

/// bitsandbytes: how 4-bit weights are stored; empty for LLM.int8.
struct BitsAndBytesWeights {
  std::string_view quant_type;  ///< "nf4", "fp4"; empty for LLM.int8
  bool double_quant = false;
};
[[nodiscard]] std::optional<std::string> bitsandbytes_config(const StoredModel& stored, FolderReader reader,
                                                             DType compute_dtype, const BitsAndBytesWeights& weights);

/// compressed-tensors: one configuration group for all quantized modules.
struct CompressedTensorsWeights {
  std::string_view format;  ///< "int-quantized"
  uint32_t bits = 0;
  std::string_view type;              ///< "int", "float"
  std::string_view strategy;          ///< "channel", "group", "tensor_group"
  uint64_t group_elements = 0;        ///< 0: none
  std::string_view scale_dtype = {};  ///< "torch.uint8"; empty where it is that of the model
  bool activations = false;           ///< quantized too, per token, by loaders that do not dequantize
};
/// Tells transformers to dequantize while loading; vLLM and SGLang run the stored weights. Nothing for diffusers.
[[nodiscard]] std::optional<std::string> compressed_tensors_config(const StoredModel& stored, FolderReader reader,
                                                                   const CompressedTensorsWeights& weights);

/// quant_method "fp8" with squares of 128 by 128. Nothing for diffusers.
[[nodiscard]] std::optional<std::string> fp8_block_config(const StoredModel& stored, FolderReader reader);

/// quanto: none for transformers, which cannot load such models (optimum.quanto does, by quanto_map_file());
/// `weights_dtype` ("float8") for diffusers.
[[nodiscard]] std::optional<std::string> quanto_config(const StoredModel& stored, FolderReader reader,
                                                       std::string_view weights_dtype);

/// quanto_qmap.json, which names the quantized modules for optimum.quanto; `qtype` is such as "qfloat8_e4m3fn".
[[nodiscard]] std::vector<FolderFile> quanto_files(const StoredModel& stored, std::string_view qtype);

}  // namespace qcache

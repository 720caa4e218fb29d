#pragma once

#include <string_view>

#include "core/quant/loader_family.h"

namespace qcache {

/// transformers with compressed-tensors, which is told to dequantize while loading; vLLM and SGLang, which run the
/// stored weights. Not diffusers.
class CompressedTensorsLoaders final : public LoaderFamily {
 public:
  /// One configuration group for all quantized modules. The views must live for ever.
  struct Weights {
    std::string_view format;  ///< "int-quantized"
    uint32_t bits = 0;
    std::string_view type;              ///< "int", "float"
    std::string_view strategy;          ///< "channel", "group", "tensor_group"
    uint64_t group_elements = 0;        ///< 0: what was chosen for the model, if anything
    std::string_view scale_dtype = {};  ///< "torch.uint8"; empty where it is that of the model
    bool activations = false;           ///< quantized too, per token, by loaders that do not dequantize
  };
  explicit CompressedTensorsLoaders(const Weights& weights) : weights_(weights) {}

  [[nodiscard]] std::optional<std::string> quantization_config(const StoredModel& stored,
                                                               FolderReader reader) const override;

 private:
  const Weights weights_;
};

}  // namespace qcache

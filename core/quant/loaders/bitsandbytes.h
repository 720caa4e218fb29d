#pragma once

#include <string_view>

#include "core/quant/loader_family.h"

namespace qcache {

/// transformers and diffusers with bitsandbytes.
class BitsAndBytesLoaders final : public LoaderFamily {
 public:
  /// How 4-bit weights are stored; of LLM.int8 neither. The view must live for ever.
  struct Weights {
    std::string_view quant_type;  ///< "nf4", "fp4"; empty for LLM.int8
    bool double_quant = false;
  };
  explicit BitsAndBytesLoaders(const Weights& weights) : weights_(weights) {}

  [[nodiscard]] std::optional<std::string> quantization_config(const StoredModel& stored,
                                                               FolderReader reader) const override;

 private:
  const Weights weights_;
};

}  // namespace qcache

#pragma once

#include "core/quant/loader_family.h"

namespace qcache {

/// quant_method "fp8" with squares of 128 by 128: transformers, vLLM and SGLang. Not diffusers.
class Fp8BlockLoaders final : public LoaderFamily {
 public:
  [[nodiscard]] std::optional<std::string> quantization_config(const StoredModel& stored,
                                                               FolderReader reader) const override;
};

}  // namespace qcache

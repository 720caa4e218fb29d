#pragma once

#include "core/quant/loader_family.h"

namespace qcache {

/// Every loader: of a model that is not quantized nothing need be told.
class DenseLoaders final : public LoaderFamily {
 public:
  [[nodiscard]] std::optional<std::string> quantization_config(const StoredModel& /*stored*/,
                                                               FolderReader /*reader*/) const override {
    return "";
  }
};

}  // namespace qcache

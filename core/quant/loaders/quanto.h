#pragma once

#include <string_view>

#include "core/quant/loader_family.h"

namespace qcache {

/// optimum.quanto, by quanto_qmap.json, which names the quantized modules; diffusers, by its config. transformers
/// cannot load such models, and is told nothing.
class QuantoLoaders final : public LoaderFamily {
 public:
  /// Views that must live for ever: quanto's name of the type, such as "qfloat8_e4m3fn", and diffusers', "float8".
  QuantoLoaders(std::string_view qtype, std::string_view diffusers_dtype)
      : qtype_(qtype), diffusers_dtype_(diffusers_dtype) {}

  [[nodiscard]] std::optional<std::string> quantization_config(const StoredModel& stored,
                                                               FolderReader reader) const override;
  [[nodiscard]] std::vector<FolderFile> files(const StoredModel& stored) const override;

 private:
  const std::string_view qtype_;
  const std::string_view diffusers_dtype_;
};

}  // namespace qcache

#pragma once

#include "core/quant/loaders/compressed_tensors.h"
#include "core/quant/scheme.h"

namespace qcache {

/// compressed-tensors "pack-quantized", weights only, one scale per group: `P.weight_packed` with the codes in 32-bit
/// words, `P.weight_scale`, `P.weight_shape`. Serves int4 and w8a16.
class PackedIntScheme final : public Scheme {
 public:
  /// `bits` is 4 or 8. The views must live for ever.
  PackedIntScheme(std::string_view name, std::span<const std::string_view> aliases, uint32_t bits)
      : name_(name),
        aliases_(aliases),
        bits_(bits),
        loaders_({.format = "pack-quantized", .bits = bits, .type = "int", .strategy = "group"}) {}

  [[nodiscard]] std::string_view name() const override { return name_; }
  [[nodiscard]] std::span<const std::string_view> aliases() const override { return aliases_; }
  [[nodiscard]] uint32_t version() const override { return 1; }
  [[nodiscard]] std::optional<std::string> refusal(const SourceModel& model) const override;
  [[nodiscard]] ModelChoices choose(const SourceModel& model) const override;
  [[nodiscard]] Encoding encoding(const SourceModel& model, const ModelChoices& choices,
                                  const TensorInfo& tensor) const override;
  [[nodiscard]] const LoaderFamily& loaders() const override { return loaders_; }

 private:
  std::string_view name_;
  std::span<const std::string_view> aliases_;
  uint32_t bits_;
  const CompressedTensorsLoaders loaders_;
};

}  // namespace qcache

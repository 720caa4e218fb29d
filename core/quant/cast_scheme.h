#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/quant/encodings.h"
#include "core/quant/loaders/dense.h"
#include "core/quant/scheme.h"

namespace qcache {

/// Every wide-float tensor cast to one dtype, everything else as it is. Serves every unquantized model.
class CastScheme final : public Scheme {
 public:
  /// The views must live for ever.
  CastScheme(std::string_view name, std::span<const std::string_view> aliases, DType target)
      : name_(name), aliases_(aliases), target_(target) {}

  [[nodiscard]] std::string_view name() const override { return name_; }
  [[nodiscard]] std::span<const std::string_view> aliases() const override { return aliases_; }
  [[nodiscard]] uint32_t version() const override { return 1; }
  [[nodiscard]] std::optional<std::string> refusal(const SourceModel& model) const override {
    return refuse_quantized(model);
  }
  [[nodiscard]] Encoding encoding(const SourceModel& /*model*/, const ModelChoices& /*choices*/,
                                  const TensorInfo& tensor) const override {
    return cast_encoding(tensor, target_);
  }
  [[nodiscard]] DType dense_dtype(const SourceModel& /*model*/) const override { return target_; }
  [[nodiscard]] const LoaderFamily& loaders() const override {
    static const DenseLoaders kLoaders;
    return kLoaders;
  }

 private:
  std::string_view name_;
  std::span<const std::string_view> aliases_;
  DType target_;
};

}  // namespace qcache

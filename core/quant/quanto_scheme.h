#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/quant/decode.h"
#include "core/quant/encodings.h"
#include "core/quant/loaders/quanto.h"
#include "core/quant/scheme.h"

namespace qcache {

/// What optimum-quanto's schemes share: its modules are refused for mixtures of experts, always have two activation
/// scales, and are restored from a quantization map. The 8-bit ones store `P.weight._data` and `P.weight._scale`, one
/// scale per row; others override encoding().
class QuantoScheme : public Scheme {
 public:
  /// The views must live for ever.
  struct Traits {
    std::string_view name;
    std::span<const std::string_view> aliases;
    uint32_t version = 1;
    std::string_view qtype;            ///< quanto's name
    std::string_view diffusers_dtype;  ///< and diffusers'
    DType code_dtype = DType::kU8;     ///< of `_data`
    EncodeFunction encode = nullptr;
    DecodeFunction decode = nullptr;
  };
  explicit QuantoScheme(const Traits& traits) : traits_(traits), loaders_(traits.qtype, traits.diffusers_dtype) {}

  [[nodiscard]] std::string_view name() const final { return traits_.name; }
  [[nodiscard]] std::span<const std::string_view> aliases() const final { return traits_.aliases; }
  [[nodiscard]] uint32_t version() const final { return traits_.version; }
  [[nodiscard]] std::optional<std::string> refusal(const SourceModel& model) const final;
  [[nodiscard]] Encoding encoding(const SourceModel& model, const ModelChoices& choices,
                                  const TensorInfo& tensor) const override;
  [[nodiscard]] const LoaderFamily& loaders() const final { return loaders_; }

 protected:
  [[nodiscard]] const Traits& traits() const { return traits_; }
  /// `P.input_scale` and `P.output_scale`: scalars of value 1, because activations are not quantized.
  static void add_activation_scales(const TensorInfo& weight, std::vector<StoredTensor>& stored);

 private:
  const Traits traits_;
  const QuantoLoaders loaders_;
};

}  // namespace qcache

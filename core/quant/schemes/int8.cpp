#include <array>

#include "core/quant/decode.h"
#include "core/quant/encodings.h"
#include "core/quant/kernels.h"
#include "core/quant/loaders/compressed_tensors.h"
#include "core/quant/quantizer.h"
#include "core/quant/schemes.h"
#include "core/quant/tensor_selection.h"

namespace qcache {
namespace {

/// compressed-tensors "int-quantized", one scale per output channel: `P.weight` I8, `P.weight_scale`.
class Int8Scheme final : public Scheme {
 public:
  [[nodiscard]] std::string_view name() const override { return "int8"; }
  [[nodiscard]] std::span<const std::string_view> aliases() const override { return kAliases; }
  [[nodiscard]] uint32_t version() const override { return 2; }

  [[nodiscard]] std::optional<std::string> refusal(const SourceModel& model) const override {
    if (auto refusal = refuse_quantized_or_joined(model, name())) {
      return refusal;
    }
    if (model.facts.mixture_of_experts) {
      return "int8 cannot serve a mixture of experts: transformers fails to load int8 experts; use fp8";
    }
    return std::nullopt;
  }

  [[nodiscard]] Encoding encoding(const SourceModel& model, const ModelChoices& /*choices*/,
                                  const TensorInfo& tensor) const override {
    if (!is_quantizable_linear(model, tensor)) {
      return copy_encoding(tensor);
    }
    return row_encoding(
        tensor, kernels::encode_int8, decode::int8,
        {stored_per_row(tensor, tensor.name, DType::kI8, tensor.shape),
         stored_per_row(tensor, tensor.name + "_scale", scale_dtype(tensor.dtype), {tensor.shape[0], 1})});
  }

  [[nodiscard]] const LoaderFamily& loaders() const override {
    static const CompressedTensorsLoaders kLoaders(
        {.format = "int-quantized", .bits = 8, .type = "int", .strategy = "channel", .activations = true});
    return kLoaders;
  }

 private:
  static constexpr std::array<std::string_view, 2> kAliases = {"w8a8", "int8-dynamic"};
};

}  // namespace

const Scheme& scheme_int8() {
  static const Int8Scheme kScheme;
  return kScheme;
}

}  // namespace qcache

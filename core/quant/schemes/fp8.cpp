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

/// compressed-tensors "float-quantized", one scale per output channel: `P.weight` F8_E4M3, `P.weight_scale`.
class Fp8Scheme final : public Scheme {
 public:
  [[nodiscard]] std::string_view name() const override { return "fp8"; }
  [[nodiscard]] std::span<const std::string_view> aliases() const override { return kAliases; }
  [[nodiscard]] uint32_t version() const override { return 2; }

  [[nodiscard]] std::optional<std::string> refusal(const SourceModel& model) const override {
    return refuse_quantized_or_joined(model, name());
  }

  [[nodiscard]] Encoding encoding(const SourceModel& model, const ModelChoices& /*choices*/,
                                  const TensorInfo& tensor) const override {
    if (!is_quantizable_linear(model, tensor)) {
      return copy_encoding(tensor);
    }
    return row_encoding(
        tensor, kernels::encode_fp8, decode::e4m3,
        {stored_per_row(tensor, tensor.name, DType::kF8E4M3, tensor.shape),
         stored_per_row(tensor, tensor.name + "_scale", scale_dtype(tensor.dtype), {tensor.shape[0], 1})});
  }

  [[nodiscard]] const LoaderFamily& loaders() const override {
    static const CompressedTensorsLoaders kLoaders(
        {.format = "float-quantized", .bits = 8, .type = "float", .strategy = "channel", .activations = true});
    return kLoaders;
  }

 private:
  static constexpr std::array<std::string_view, 4> kAliases = {"fp8-dynamic", "float8_e4m3fn", "fp8_e4m3", "float8"};
};

}  // namespace

const Scheme& scheme_fp8() {
  static const Fp8Scheme kScheme;
  return kScheme;
}

}  // namespace qcache

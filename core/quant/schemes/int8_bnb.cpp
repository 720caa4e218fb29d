#include <array>

#include "core/quant/decode.h"
#include "core/quant/encodings.h"
#include "core/quant/kernels.h"
#include "core/quant/loaders/bitsandbytes.h"
#include "core/quant/quantizer.h"
#include "core/quant/schemes.h"
#include "core/quant/tensor_selection.h"

namespace qcache {
namespace {

/// bitsandbytes LLM.int8: `P.weight` I8, `P.SCB` with the largest magnitude of each row, and `P.weight_format`, which
/// is 0 for "row by row".
class Int8BnbScheme final : public Scheme {
 public:
  [[nodiscard]] std::string_view name() const override { return "int8-bnb"; }
  [[nodiscard]] std::span<const std::string_view> aliases() const override { return kAliases; }
  [[nodiscard]] uint32_t version() const override { return 1; }

  [[nodiscard]] std::optional<std::string> refusal(const SourceModel& model) const override {
    return refuse_quantized_or_joined(model, name());
  }

  [[nodiscard]] Encoding encoding(const SourceModel& model, const ModelChoices& /*choices*/,
                                  const TensorInfo& tensor) const override {
    if (!is_quantizable_linear(model, tensor) || is_expert(tensor)) {
      return copy_encoding(tensor);
    }
    const std::string module(module_of_weight(tensor));
    return row_encoding(tensor, kernels::encode_llm_int8, decode::llm_int8,
                        {stored_per_row(tensor, tensor.name, DType::kI8, tensor.shape),
                         stored_per_row(tensor, module + ".SCB", DType::kF32, {tensor.shape[0]}),
                         stored_constant(module + ".weight_format", DType::kU8, {}, std::string(1, '\0'))});
  }

  [[nodiscard]] const LoaderFamily& loaders() const override {
    static const BitsAndBytesLoaders kLoaders(BitsAndBytesLoaders::Weights{});
    return kLoaders;
  }

 private:
  static constexpr std::array<std::string_view, 2> kAliases = {"bnb-8bit", "llm-int8"};
};

}  // namespace

const Scheme& scheme_int8_bnb() {
  static const Int8BnbScheme kScheme;
  return kScheme;
}

}  // namespace qcache

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

/// compressed-tensors "nvfp4-pack-quantized": `P.weight_packed` with two E2M1 codes per byte, `P.weight_scale`, an E4M3
/// scale for every 16 elements, in units of `P.weight_global_scale`, one F32 per tensor. Everything else is bf16.
class Nvfp4Scheme final : public Scheme {
 public:
  [[nodiscard]] std::string_view name() const override { return "nvfp4"; }
  [[nodiscard]] std::span<const std::string_view> aliases() const override { return kAliases; }
  [[nodiscard]] uint32_t version() const override { return 1; }

  [[nodiscard]] std::optional<std::string> refusal(const SourceModel& model) const override {
    if (auto refusal = refuse_quantized_or_joined(model, name())) {
      return refusal;
    }
    if (model.facts.mixture_of_experts) {
      return "nvfp4 cannot serve a mixture of experts: transformers ignores the global scales of experts and loads "
             "wrong "
             "weights; use fp8";
    }
    return std::nullopt;
  }

  [[nodiscard]] Encoding encoding(const SourceModel& model, const ModelChoices& /*choices*/,
                                  const TensorInfo& tensor) const override {
    if (!is_quantizable_linear(model, tensor) || tensor.shape[1] % kNvfp4GroupElements != 0) {
      return cast_encoding(tensor, DType::kBF16);
    }
    const uint64_t rows = tensor.shape[0];
    const uint64_t columns = tensor.shape[1];
    Encoding out = row_encoding(
        tensor, kernels::encode_nvfp4, decode::nvfp4,
        {stored_per_row(tensor, tensor.name + "_packed", DType::kU8, {rows, columns / 2}),
         stored_per_row(tensor, tensor.name + "_scale", DType::kF8E4M3, {rows, columns / kNvfp4GroupElements}),
         stored_once(tensor.name + "_global_scale", DType::kF32, {1}, [](const Survey& survey) {
           const std::array<float, 1> scale = {nvfp4_global_scale(survey.amax)};
           return constant_bytes(DType::kF32, scale);
         })});
    out.group_elements = kNvfp4GroupElements;
    out.survey = kernels::survey_amax;
    return out;
  }

  [[nodiscard]] const LoaderFamily& loaders() const override {
    static const CompressedTensorsLoaders kLoaders({.format = "nvfp4-pack-quantized",
                                                    .bits = 4,
                                                    .type = "float",
                                                    .strategy = "tensor_group",
                                                    .group_elements = kNvfp4GroupElements,
                                                    .scale_dtype = "torch.float8_e4m3fn"});
    return kLoaders;
  }

  // The loader decompresses to bf16 whatever the model's own type is, so the rest of the model has to be bf16 too.
  [[nodiscard]] DType dense_dtype(const SourceModel& /*model*/) const override { return DType::kBF16; }

 private:
  static constexpr std::array<std::string_view, 1> kAliases = {"nvfp4a16"};
};

}  // namespace

const Scheme& scheme_nvfp4() {
  static const Nvfp4Scheme kScheme;
  return kScheme;
}

}  // namespace qcache

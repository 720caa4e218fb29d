#include <array>

#include "core/quant/decode.h"
#include "core/quant/encodings.h"
#include "core/quant/group_size.h"
#include "core/quant/kernels.h"
#include "core/quant/loaders/compressed_tensors.h"
#include "core/quant/quantizer.h"
#include "core/quant/schemes.h"
#include "core/quant/tensor_selection.h"

namespace qcache {
namespace {

/// compressed-tensors "mxfp4-pack-quantized": `P.weight_packed` with two E2M1 codes per byte, and `P.weight_scale`, an
/// E8M0 power of two for every 32 elements. Everything else is bf16.
class Mxfp4Scheme final : public Scheme {
 public:
  [[nodiscard]] std::string_view name() const override { return "mxfp4"; }
  [[nodiscard]] std::span<const std::string_view> aliases() const override { return kAliases; }
  [[nodiscard]] uint32_t version() const override { return 1; }

  [[nodiscard]] std::optional<std::string> refusal(const SourceModel& model) const override {
    if (auto refusal = refuse_quantized_or_joined(model, name())) {
      return refusal;
    }
    return refuse_dense_experts(model, name(), kMxfp4GroupElements);
  }

  [[nodiscard]] Encoding encoding(const SourceModel& model, const ModelChoices& /*choices*/,
                                  const TensorInfo& tensor) const override {
    if (!is_quantizable_linear(model, tensor) || tensor.shape[1] % kMxfp4GroupElements != 0) {
      return cast_encoding(tensor, DType::kBF16);
    }
    const uint64_t rows = tensor.shape[0];
    const uint64_t columns = tensor.shape[1];
    Encoding out = row_encoding(
        tensor, kernels::encode_mxfp4, decode::mxfp4,
        {stored_per_row(tensor, tensor.name + "_packed", DType::kU8, {rows, columns / 2}),
         stored_per_row(tensor, tensor.name + "_scale", DType::kU8, {rows, columns / kMxfp4GroupElements})});
    out.group_elements = kMxfp4GroupElements;
    return out;
  }

  [[nodiscard]] const LoaderFamily& loaders() const override {
    static const CompressedTensorsLoaders kLoaders({.format = "mxfp4-pack-quantized",
                                                    .bits = 4,
                                                    .type = "float",
                                                    .strategy = "group",
                                                    .group_elements = kMxfp4GroupElements,
                                                    .scale_dtype = "torch.uint8"});
    return kLoaders;
  }

  // The loader decompresses to bf16 whatever the model's own type is, so the rest of the model has to be bf16 too.
  [[nodiscard]] DType dense_dtype(const SourceModel& /*model*/) const override { return DType::kBF16; }

 private:
  static constexpr std::array<std::string_view, 1> kAliases = {"mxfp4a16"};
};

}  // namespace

const Scheme& scheme_mxfp4() {
  static const Mxfp4Scheme kScheme;
  return kScheme;
}

}  // namespace qcache

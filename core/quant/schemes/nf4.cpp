#include <array>

#include "core/quant/encodings.h"
#include "core/quant/folder_config.h"
#include "core/quant/kernels.h"
#include "core/quant/quantizer.h"
#include "core/quant/schemes.h"
#include "core/quant/tensor_selection.h"

namespace qcache {
namespace {

/// What bitsandbytes needs to know of a weight to restore it, as its own save writes it.
std::string quant_state_json(const TensorInfo& tensor) {
  // bitsandbytes dequantizes to this type; no layer computes in float64.
  const DType dtype = scale_dtype(tensor.dtype);
  return R"({"quant_type": "nf4", "blocksize": 64, "dtype": ")" + std::string(torch_name(dtype)) + R"(", "shape": [)" +
         std::to_string(tensor.shape[0]) + ", " + std::to_string(tensor.shape[1]) + "]}";
}

/// bitsandbytes NF4 with blocks of 64 and fp32 absmax: `P.weight` with two codes per byte, its absmax, the
/// code table, and the quant state.
class Nf4Scheme final : public Scheme {
 public:
  [[nodiscard]] std::string_view name() const override { return "nf4"; }
  [[nodiscard]] std::span<const std::string_view> aliases() const override { return kAliases; }
  [[nodiscard]] uint32_t version() const override { return 1; }

  [[nodiscard]] std::optional<std::string> refusal(const SourceModel& model) const override {
    return refuse_quantized(model);
  }

  [[nodiscard]] Encoding encoding(const SourceModel& model, const ModelChoices& /*choices*/,
                                  const TensorInfo& tensor) const override {
    if (!is_quantizable_linear(model, tensor) || is_expert(tensor) || !fits_loader(tensor)) {
      return copy_encoding(tensor);
    }
    const uint64_t elements = tensor.element_count();
    std::string state = quant_state_json(tensor);
    const uint64_t state_bytes = state.size();
    return row_encoding(
        tensor, kernels::encode_nf4,
        {stored_per_row(tensor, tensor.name, DType::kU8, {elements / 2, 1}),
         stored_per_row(tensor, tensor.name + ".absmax", DType::kF32, {elements / kNf4BlockElements}),
         stored_constant(tensor.name + ".quant_map", DType::kF32, {kNf4Values.size()},
                         constant_bytes(DType::kF32, kNf4Values)),
         stored_constant(tensor.name + ".quant_state.bitsandbytes__nf4", DType::kU8, {state_bytes}, std::move(state))});
  }

  [[nodiscard]] std::optional<std::string> quantization_config(const StoredModel& stored,
                                                               FolderReader reader) const override {
    return bitsandbytes_config(stored, reader, scale_dtype(dense_dtype(stored.model)), {.quant_type = "nf4"});
  }

 private:
  /// bitsandbytes' CPU kernels fail on other shapes; whole blocks per row are also what makes rows units.
  static bool fits_loader(const TensorInfo& tensor) {
    return tensor.shape[0] % 32 == 0 && tensor.shape[1] % kNf4BlockElements == 0;
  }

  static constexpr std::array<std::string_view, 2> kAliases = {"bnb-4bit", "bnb-nf4"};
};

}  // namespace

const Scheme& scheme_nf4() {
  static const Nf4Scheme kScheme;
  return kScheme;
}

}  // namespace qcache

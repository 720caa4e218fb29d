#include <array>

#include "core/quant/decode.h"
#include "core/quant/encodings.h"
#include "core/quant/folder_config.h"
#include "core/quant/kernels.h"
#include "core/quant/quantizer.h"
#include "core/quant/schemes.h"
#include "core/quant/tensor_selection.h"

namespace qcache {
namespace {

/// optimum-quanto's qfloat8_e4m3fn: `P.weight._data`, `P.weight._scale`, and the two activation scales that
/// its modules always have.
class Qfloat8Scheme final : public Scheme {
 public:
  [[nodiscard]] std::string_view name() const override { return "qfloat8"; }
  [[nodiscard]] std::span<const std::string_view> aliases() const override { return kAliases; }
  [[nodiscard]] uint32_t version() const override { return 2; }

  [[nodiscard]] std::optional<std::string> refusal(const SourceModel& model) const override {
    if (model.facts.mixture_of_experts) {
      return "qfloat8 cannot serve a mixture of experts: quanto drops the weights of single experts when it "
             "loads them; use fp8";
    }
    return refuse_quantized(model);
  }

  [[nodiscard]] Encoding encoding(const SourceModel& model, const ModelChoices& /*choices*/,
                                  const TensorInfo& tensor) const override {
    if (!is_quantizable_linear(model, tensor)) {
      return copy_encoding(tensor);
    }
    const DType scale = scale_dtype(tensor.dtype);
    const std::array<float, 1> one = {1.0F};
    const std::string module(module_of_weight(tensor));
    return row_encoding(tensor, kernels::encode_qfloat8, decode::e4m3,
                        {stored_per_row(tensor, tensor.name + "._data", DType::kF8E4M3, tensor.shape),
                         stored_per_row(tensor, tensor.name + "._scale", scale, {tensor.shape[0], 1}),
                         stored_constant(module + ".input_scale", scale, {}, constant_bytes(scale, one)),
                         stored_constant(module + ".output_scale", scale, {}, constant_bytes(scale, one))});
  }

  [[nodiscard]] std::optional<std::string> quantization_config(const StoredModel& stored,
                                                               FolderReader reader) const override {
    return quanto_config(stored, reader, "float8");
  }
  [[nodiscard]] std::vector<FolderFile> folder_files(const StoredModel& stored) const override {
    return quanto_files(stored, "qfloat8_e4m3fn");
  }

 private:
  static constexpr std::array<std::string_view, 2> kAliases = {"qfloat8_e4m3fn", "quanto-float8"};
};

}  // namespace

const Scheme& scheme_qfloat8() {
  static const Qfloat8Scheme kScheme;
  return kScheme;
}

}  // namespace qcache

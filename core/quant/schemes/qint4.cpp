#include <array>

#include "core/base/checked.h"
#include "core/quant/decode.h"
#include "core/quant/encodings.h"
#include "core/quant/folder_config.h"
#include "core/quant/kernels.h"
#include "core/quant/quantizer.h"
#include "core/quant/schemes.h"
#include "core/quant/tensor_selection.h"

namespace qcache {
namespace {

/// quanto's choice: 128, or the next smaller multiple of 32 that divides the row; whole rows where none does and where
/// they are short.
uint64_t group_of(uint64_t row) {
  constexpr uint64_t kLargest = 128;
  constexpr uint64_t kStep = 32;
  for (uint64_t group = kLargest; row > kLargest && group > 0; group -= kStep) {
    if (row % group == 0) {
      return group;
    }
  }
  return row;
}

/// optimum-quanto's qint4: `P.weight._data._data` with one code of either half of the groups in each byte,
/// `P.weight._scale` and `P.weight._shift` per group, and the two activation scales. A unit is the two groups that
/// share bytes.
class Qint4Scheme final : public Scheme {
 public:
  [[nodiscard]] std::string_view name() const override { return "qint4"; }
  [[nodiscard]] std::span<const std::string_view> aliases() const override { return kAliases; }
  [[nodiscard]] uint32_t version() const override { return 1; }

  [[nodiscard]] std::optional<std::string> refusal(const SourceModel& model) const override {
    if (model.facts.mixture_of_experts) {
      return "qint4 cannot serve a mixture of experts: quanto drops the weights of single experts when it loads them; "
             "use fp8";
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
    const uint64_t group = group_of(tensor.shape[1]);
    const uint64_t groups = tensor.element_count() / group;
    const auto of_groups = [&](const char* suffix) {
      return StoredTensor{.name = tensor.name + suffix,
                          .dtype = scale,
                          .shape = {groups, 1},
                          .bytes_per_unit = item_bytes(scale),
                          .order = UnitOrder::kFolded};
    };
    Encoding out = row_encoding(tensor, kernels::encode_qint4, decode::qint4,
                                {{.name = tensor.name + "._data._data",
                                  .dtype = DType::kU8,
                                  .shape = {ceil_div(groups, 2), group},
                                  .bytes_per_unit = group},
                                 of_groups("._scale"),
                                 of_groups("._shift"),
                                 stored_constant(module + ".input_scale", scale, {}, constant_bytes(scale, one)),
                                 stored_constant(module + ".output_scale", scale, {}, constant_bytes(scale, one))});
    out.source_order = UnitOrder::kFolded;
    out.source_bytes_per_unit = group * item_bytes(tensor.dtype);
    out.group_elements = group;
    return out;
  }

  [[nodiscard]] std::optional<std::string> quantization_config(const StoredModel& stored,
                                                               FolderReader reader) const override {
    return quanto_config(stored, reader, "int4");
  }

  [[nodiscard]] std::vector<FolderFile> folder_files(const StoredModel& stored) const override {
    return quanto_files(stored, "qint4");
  }

 private:
  static constexpr std::array<std::string_view, 1> kAliases = {"quanto-int4"};
};

}  // namespace

const Scheme& scheme_qint4() {
  static const Qint4Scheme kScheme;
  return kScheme;
}

}  // namespace qcache

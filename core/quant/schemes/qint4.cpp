#include <array>
#include <utility>

#include "core/base/checked.h"
#include "core/quant/kernels.h"
#include "core/quant/quantizer.h"
#include "core/quant/quanto_scheme.h"
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

/// `P.weight._data._data` with one code of either half of the groups in each byte, `P.weight._scale` and
/// `P.weight._shift` per group. A unit is the two groups that share bytes.
class Qint4Scheme final : public QuantoScheme {
 public:
  using QuantoScheme::QuantoScheme;

  [[nodiscard]] Encoding encoding(const SourceModel& model, const ModelChoices& /*choices*/,
                                  const TensorInfo& tensor) const override {
    if (!is_quantizable_linear(model, tensor)) {
      return copy_encoding(tensor);
    }
    const DType scale = scale_dtype(tensor.dtype);
    const uint64_t group = group_of(tensor.shape[1]);
    const uint64_t groups = tensor.element_count() / group;
    const auto of_groups = [&](const char* suffix) {
      return StoredTensor{.name = tensor.name + suffix,
                          .dtype = scale,
                          .shape = {groups, 1},
                          .bytes_per_unit = item_bytes(scale),
                          .order = UnitOrder::kFolded};
    };
    std::vector<StoredTensor> stored = {{.name = tensor.name + "._data._data",
                                         .dtype = traits().code_dtype,
                                         .shape = {ceil_div(groups, 2), group},
                                         .bytes_per_unit = group},
                                        of_groups("._scale"),
                                        of_groups("._shift")};
    add_activation_scales(tensor, stored);
    Encoding out = row_encoding(tensor, traits().encode, traits().decode, std::move(stored));
    out.source_order = UnitOrder::kFolded;
    out.source_bytes_per_unit = group * item_bytes(tensor.dtype);
    out.group_elements = group;
    return out;
  }
};

}  // namespace

const Scheme& scheme_qint4() {
  static constexpr std::array<std::string_view, 1> kAliases = {"quanto-int4"};
  static const Qint4Scheme kScheme({.name = "qint4",
                                    .aliases = kAliases,
                                    .version = 1,
                                    .qtype = "qint4",
                                    .diffusers_dtype = "int4",
                                    .code_dtype = DType::kU8,
                                    .encode = kernels::encode_qint4,
                                    .decode = decode::qint4});
  return kScheme;
}

}  // namespace qcache

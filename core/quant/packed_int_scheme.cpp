#include "core/quant/packed_int_scheme.h"

#include "core/quant/decode.h"
#include "core/quant/encodings.h"
#include "core/quant/group_size.h"
#include "core/quant/kernels.h"
#include "core/quant/quantizer.h"
#include "core/quant/tensor_selection.h"

namespace qcache {

std::optional<std::string> PackedIntScheme::refusal(const SourceModel& model) const {
  if (auto refusal = refuse_quantized_or_joined(model, name_)) {
    return refusal;
  }
  return refuse_dense_experts(model, name_, kLeastGroupElements);
}

ModelChoices PackedIntScheme::choose(const SourceModel& model) const {
  return {.group_elements = common_group_elements(model)};
}

Encoding PackedIntScheme::encoding(const SourceModel& model, const ModelChoices& choices,
                                   const TensorInfo& tensor) const {
  const uint64_t group = choices.group_elements;
  if (!is_quantizable_linear(model, tensor) || group == 0 || tensor.shape[1] % group != 0) {
    return copy_encoding(tensor);
  }
  const uint64_t rows = tensor.shape[0];
  const uint64_t columns = tensor.shape[1];
  const uint64_t codes_per_word = 32 / bits_;
  Encoding out = row_encoding(
      tensor, bits_ == 4 ? kernels::encode_int4 : kernels::encode_w8a16, bits_ == 4 ? decode::int4 : decode::w8a16,
      {stored_per_row(tensor, tensor.name + "_packed", DType::kI32, {rows, columns / codes_per_word}),
       stored_per_row(tensor, tensor.name + "_scale", scale_dtype(tensor.dtype), {rows, columns / group}),
       stored_constant(tensor.name + "_shape", DType::kI64, {2}, constant_int64s({rows, columns}))});
  out.group_elements = group;
  return out;
}

}  // namespace qcache

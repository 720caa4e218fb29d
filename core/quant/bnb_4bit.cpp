#include "core/quant/bnb_4bit.h"

#include "core/quant/encodings.h"
#include "core/quant/quantizer.h"
#include "core/quant/tensor_selection.h"

namespace qcache {

bool fits_bnb_4bit(const SourceModel& model, const TensorInfo& tensor) {
  return is_quantizable_linear(model, tensor) && !is_expert(tensor) && tensor.shape[0] % 32 == 0 &&
         tensor.shape[1] % kNf4BlockElements == 0;
}

std::string open_quant_state(std::string_view quant_type, const TensorInfo& tensor) {
  // bitsandbytes dequantizes to this type; no layer computes in float64.
  const DType dtype = scale_dtype(tensor.dtype);
  return R"({"quant_type": ")" + std::string(quant_type) + R"(", "blocksize": 64, "dtype": ")" +
         std::string(torch_name(dtype)) + R"(", "shape": [)" + std::to_string(tensor.shape[0]) + ", " +
         std::to_string(tensor.shape[1]) + "]";
}

std::optional<std::string> Bnb4BitScheme::refusal(const SourceModel& model) const {
  return refuse_quantized_or_joined(model, traits_.name);
}

Encoding Bnb4BitScheme::encoding(const SourceModel& model, const ModelChoices& /*choices*/,
                                 const TensorInfo& tensor) const {
  if (!fits_bnb_4bit(model, tensor)) {
    return copy_encoding(tensor);
  }
  const uint64_t elements = tensor.element_count();
  const std::string state = open_quant_state(traits_.name, tensor) + "}";
  return row_encoding(tensor, traits_.encode, traits_.decode,
                      {stored_per_row(tensor, tensor.name, DType::kU8, {elements / 2, 1}),
                       stored_per_row(tensor, tensor.name + ".absmax", DType::kF32, {elements / kNf4BlockElements}),
                       stored_constant(tensor.name + ".quant_map", DType::kF32, {traits_.values.size()},
                                       constant_bytes(DType::kF32, traits_.values)),
                       stored_constant(tensor.name + ".quant_state.bitsandbytes__" + std::string(traits_.name),
                                       DType::kU8, {state.size()}, state)});
}

}  // namespace qcache

#include "core/quant/quanto_scheme.h"

#include <array>
#include <utility>

#include "core/quant/quantizer.h"
#include "core/quant/tensor_selection.h"

namespace qcache {

std::optional<std::string> QuantoScheme::refusal(const SourceModel& model) const {
  if (model.facts.mixture_of_experts) {
    return std::string(traits_.name) +
           " cannot serve a mixture of experts: quanto drops the weights of single experts when it loads them; use fp8";
  }
  return refuse_quantized(model);
}

Encoding QuantoScheme::encoding(const SourceModel& model, const ModelChoices& /*choices*/,
                                const TensorInfo& tensor) const {
  if (!is_quantizable_linear(model, tensor)) {
    return copy_encoding(tensor);
  }
  std::vector<StoredTensor> stored = {
      stored_per_row(tensor, tensor.name + "._data", traits_.code_dtype, tensor.shape),
      stored_per_row(tensor, tensor.name + "._scale", scale_dtype(tensor.dtype), {tensor.shape[0], 1})};
  add_activation_scales(tensor, stored);
  return row_encoding(tensor, traits_.encode, traits_.decode, std::move(stored));
}

void QuantoScheme::add_activation_scales(const TensorInfo& weight, std::vector<StoredTensor>& stored) {
  const DType dtype = scale_dtype(weight.dtype);
  const std::array<float, 1> one = {1.0F};
  const std::string module(module_of_weight(weight));
  for (const char* const suffix : {".input_scale", ".output_scale"}) {
    stored.push_back(stored_constant(module + suffix, dtype, {}, constant_bytes(dtype, one)));
  }
}

}  // namespace qcache

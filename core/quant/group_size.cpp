#include "core/quant/group_size.h"

#include <algorithm>
#include <array>

#include "core/model/text.h"
#include "core/quant/tensor_selection.h"

namespace qcache {

uint64_t common_group_elements(const SourceModel& model) {
  constexpr std::array<uint64_t, 3> kSizes = {128, 64, kLeastGroupElements};
  size_t size = 0;
  for (const TensorInfo& tensor : model.tensors) {
    if (is_quantizable_linear(model, tensor) && tensor.shape[1] % kLeastGroupElements == 0) {
      while (tensor.shape[1] % kSizes.at(size) != 0) {
        ++size;
      }
    }
  }
  return kSizes.at(size);
}

std::optional<std::string> refuse_dense_experts(const SourceModel& model, std::string_view scheme, uint64_t least) {
  const auto dense = std::find_if(model.tensors.begin(), model.tensors.end(), [&](const TensorInfo& tensor) {
    return is_expert(tensor) && tensor.shape.size() == 2 && !module_of_weight(tensor).empty() &&
           (!is_quantizable_linear(model, tensor) || tensor.shape[1] % least != 0);
  });
  if (dense == model.tensors.end()) {
    return std::nullopt;
  }
  return std::string(scheme) + " cannot serve this mixture of experts: the rows of expert weights such as " +
         in_quotes(dense->name) + " are no multiples of " + std::to_string(least) +
         ", and transformers loads no experts that are quantized only in part; use fp8";
}

}  // namespace qcache

#include "core/quant/factors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <span>

#include "core/base/digest.h"
#include "core/quant/tensor_selection.h"

namespace qcache {

uint32_t factor_set_size(uint32_t rank) {
  constexpr uint32_t kSmallestSet = 64;
  return std::max(kSmallestSet, std::bit_ceil(rank));
}

uint64_t factor_seed(std::string_view tensor_name) {
  const Sha256Digest digest = sha256(std::as_bytes(std::span(tensor_name)));
  uint64_t seed = 0;
  for (size_t i = 0; i < sizeof seed; ++i) {
    seed |= std::to_integer<uint64_t>(std::byte{digest.at(i)}) << (8 * i);
  }
  return seed;
}

uint64_t largest_rank(const TensorInfo& tensor, const Encoding& weight) {
  const bool has_factors =
      weight.quantized && tensor.shape.size() == 2 && weight.source_bytes > 0 && !module_of_weight(tensor).empty();
  return has_factors ? std::min(tensor.shape[0], tensor.shape[1]) : 0;
}

std::optional<Encoding> factors_of(const TensorInfo& tensor, const Encoding& weight, uint32_t rank,
                                   std::string_view prefix) {
  if (rank == 0 || largest_rank(tensor, weight) == 0) {
    return std::nullopt;
  }
  const std::string module = std::string(prefix) + std::string(module_of_weight(tensor));
  const auto factor = [&](std::string_view which, Shape shape) {
    StoredTensor stored;
    stored.name = module + '.' + std::string(which) + ".weight";
    stored.dtype = DType::kF32;
    stored.shape = std::move(shape);
    stored.bytes_per_unit = stored.size_bytes();  // where it overflows, planning refuses the shape
    return stored;
  };
  Encoding out;
  out.stored = {factor("lora_A", {rank, tensor.shape[1]}), factor("lora_B", {tensor.shape[0], rank})};
  out.survey = weight.survey;
  out.source_dtype = weight.source_dtype;
  out.source_bytes = weight.source_bytes;
  out.source_bytes_per_unit = weight.source_bytes;
  out.row_elements = weight.row_elements;
  out.factored = std::make_shared<const Encoding>(weight);
  return out;
}

}  // namespace qcache

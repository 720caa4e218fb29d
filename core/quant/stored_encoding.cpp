#include "core/quant/stored_encoding.h"

#include <algorithm>
#include <array>

namespace qcache {
namespace {

// F64 decodes as F32 does.
constexpr std::array kSourceDtypes = {DType::kBF16, DType::kF16, DType::kF32};
constexpr std::array<uint64_t, 3> kGroupSizes = {128, 64, 32};

bool is_in_file(const StoredTensor& stored, const FindInFile& in_file) {
  const auto found = in_file(stored.name);
  if (!found || found->dtype != stored.dtype || found->shape != stored.shape) {
    return false;
  }
  return stored.constant.empty() || std::ranges::equal(std::as_bytes(std::span(stored.constant)), found->bytes);
}

}  // namespace

StoredEncodings::StoredEncodings(const Scheme& scheme, std::span<const std::string> quantized) : scheme_(scheme) {
  for (const std::string& name : quantized) {
    model_.tensors.push_back(TensorInfo{.name = name, .shape = {}, .data = {}});
  }
  // Which tensors are quantized has been decided. A known kind of model is asked for no more than the names say.
  model_.facts.model_type = "stored";
}

Encoding StoredEncodings::encoding(const std::string& name, DType dtype, const Shape& shape,
                                   uint64_t group_elements) const {
  TensorInfo tensor{.name = name, .dtype = dtype, .shape = shape, .data = {}};
  tensor.data.size = tensor.element_count() * item_bytes(dtype);
  return scheme_.encoding(model_, {.group_elements = group_elements}, tensor);
}

std::vector<std::string> StoredEncodings::names_of(const std::string& name) const {
  constexpr uint64_t kFitsEveryScheme = 128;
  std::vector<std::string> names;
  for (const StoredTensor& stored :
       encoding(name, DType::kBF16, {kFitsEveryScheme, kFitsEveryScheme}, kGroupSizes.front()).stored) {
    names.push_back(stored.name);
  }
  return names;
}

std::optional<Encoding> StoredEncodings::find(const std::string& name, const Shape& shape,
                                              const FindInFile& in_file) const {
  for (const DType dtype : kSourceDtypes) {
    for (const uint64_t group : kGroupSizes) {
      Encoding candidate = encoding(name, dtype, shape, group);
      if (candidate.quantized && std::ranges::all_of(candidate.stored, [&](const StoredTensor& stored) {
            return is_in_file(stored, in_file);
          })) {
        return candidate;
      }
    }
  }
  return std::nullopt;
}

}  // namespace qcache

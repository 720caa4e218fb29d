#include "core/quant/encodings.h"

#include <algorithm>
#include <utility>

#include "core/quant/kernels.h"
#include "core/quant/number_formats.h"

namespace qcache {
namespace {

/// Elements of one unit of a cast or copy: small enough that a tile is many, large enough that bookkeeping
/// per unit does not count.
constexpr uint64_t kFlatUnitElements = 16384;

EncodeFunction cast_function(DType target) {
  switch (target) {
    case DType::kBF16:
      return kernels::cast_to_bf16;
    case DType::kF16:
      return kernels::cast_to_fp16;
    default:
      return kernels::cast_to_fp32;
  }
}

Encoding flat_encoding(const TensorInfo& tensor, DType target, EncodeFunction encode) {
  Encoding out;
  out.stored.push_back({.name = tensor.name,
                        .dtype = target,
                        .shape = tensor.shape,
                        .constant = {},
                        .bytes_per_unit = kFlatUnitElements * item_bytes(target)});
  out.encode = encode;
  out.source_dtype = tensor.dtype;
  out.source_bytes = tensor.data.size;
  out.source_bytes_per_unit = kFlatUnitElements * item_bytes(tensor.dtype);
  out.row_elements = kFlatUnitElements;
  return out;
}

}  // namespace

Encoding copy_encoding(const TensorInfo& tensor) {
  return flat_encoding(tensor, tensor.dtype, kernels::copy);
}

Encoding cast_encoding(const TensorInfo& tensor, DType target) {
  if (!is_wide_float(tensor.dtype) || tensor.dtype == target) {
    return copy_encoding(tensor);
  }
  return flat_encoding(tensor, target, cast_function(target));
}

Encoding row_encoding(const TensorInfo& tensor, EncodeFunction encode, DecodeFunction decode,
                      std::vector<StoredTensor> stored) {
  Encoding out;
  out.stored = std::move(stored);
  out.encode = encode;
  out.decode = decode;
  out.source_dtype = tensor.dtype;
  out.source_bytes = tensor.data.size;
  out.row_elements = tensor.shape[1];
  out.source_bytes_per_unit = tensor.shape[1] * item_bytes(tensor.dtype);
  out.quantized = true;
  return out;
}

StoredTensor stored_per_row(const TensorInfo& source, std::string name, DType dtype, Shape shape) {
  StoredTensor out{.name = std::move(name), .dtype = dtype, .shape = std::move(shape)};
  out.bytes_per_unit = out.size_bytes() / source.shape[0];
  return out;
}

StoredTensor stored_constant(std::string name, DType dtype, Shape shape, std::string bytes) {
  return {.name = std::move(name), .dtype = dtype, .shape = std::move(shape), .constant = std::move(bytes)};
}

StoredTensor stored_once(std::string name, DType dtype, Shape shape, std::function<std::string(const Survey&)> once) {
  return {.name = std::move(name),
          .dtype = dtype,
          .shape = std::move(shape),
          .order = UnitOrder::kOnce,
          .once = std::move(once)};
}

std::string constant_int64s(std::initializer_list<uint64_t> values) {
  std::string bytes;
  for (const uint64_t value : values) {
    for (unsigned shift = 0; shift < 64; shift += 8) {
      bytes += static_cast<char>(value >> shift & 0xff);
    }
  }
  return bytes;
}

std::string constant_bytes(DType dtype, std::span<const float> values) {
  std::vector<std::byte> bytes(values.size() * item_bytes(dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    store_from_float(dtype, values[i], bytes.data() + i * item_bytes(dtype));
  }
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::optional<std::string> refuse_quantized(const SourceModel& model) {
  if (model.facts.quant_method.empty()) {
    return std::nullopt;
  }
  return "already quantized (" + model.facts.quant_method + "): qcache serves unquantized models only";
}

std::optional<std::string> refuse_quantized_or_joined(const SourceModel& model, std::string_view scheme) {
  if (auto quantized = refuse_quantized(model)) {
    return quantized;
  }
  const bool joined = std::any_of(model.tensors.begin(), model.tensors.end(), [](const TensorInfo& tensor) {
    return tensor.name.ends_with(".experts.gate_up_proj");
  });
  if (!joined || !model.facts.model_type.starts_with("llama4")) {
    return std::nullopt;
  }
  // Of these two methods' files, transformers expects that they have been made with a module for each expert.
  return std::string(scheme) +
         " cannot serve a Llama 4 whose experts are stored together: transformers looks for single experts and goes on "
         "with random ones; use fp8-block";
}

}  // namespace qcache

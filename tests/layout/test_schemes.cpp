#include "tests/layout/test_schemes.h"

#include <algorithm>
#include <array>

#include "core/base/checked.h"

namespace qcache {
namespace {

constexpr std::array kAllDTypes = {DType::kF64, DType::kF32,    DType::kF16,        DType::kBF16,       DType::kI64,
                                   DType::kI32, DType::kI16,    DType::kI8,         DType::kU64,        DType::kU32,
                                   DType::kU16, DType::kU8,     DType::kBool,       DType::kF8E4M3,     DType::kF8E5M2,
                                   DType::kC64, DType::kF8E8M0, DType::kF8E4M3Fnuz, DType::kF8E5M2Fnuz, DType::kF4};

StoredTensor produced(std::string name, DType dtype, Shape shape, uint64_t bytes_per_unit) {
  StoredTensor stored;
  stored.name = std::move(name);
  stored.dtype = dtype;
  stored.shape = std::move(shape);
  stored.bytes_per_unit = bytes_per_unit;
  return stored;
}

StoredTensor constant(std::string name, DType dtype, Shape shape, std::string bytes) {
  StoredTensor stored = produced(std::move(name), dtype, std::move(shape), 0);
  stored.constant = std::move(bytes);
  return stored;
}

}  // namespace

TensorInfo make_tensor(std::string name, DType dtype, Shape shape) {
  TensorInfo tensor;
  tensor.name = std::move(name);
  tensor.dtype = dtype;
  tensor.shape = std::move(shape);
  tensor.data.size = tensor.element_count() * item_bytes(dtype);
  return tensor;
}

SourceModel make_model(std::vector<TensorInfo> tensors) {
  SourceModel model;
  model.name = "tiny";
  uint64_t offset = 0;
  for (TensorInfo& tensor : tensors) {
    tensor.data.offset = offset;
    offset += tensor.data.size;
  }
  model.tensors = std::move(tensors);
  return model;
}

SourceModel random_model(std::mt19937_64& random, size_t count) {
  const auto below = [&](uint64_t limit) { return std::uniform_int_distribution<uint64_t>(0, limit - 1)(random); };
  std::vector<TensorInfo> tensors;
  for (size_t i = 0; i < count; ++i) {
    constexpr std::array kWords = {"model.layers.", "größe.", "重み.", "🦆.", "a b/c\\d\"e.", "x"};
    const std::string name = kWords[below(kWords.size())] + std::string(below(40), 'n') + std::to_string(i);
    Shape shape(below(6));
    for (uint64_t& extent : shape) {
      extent = below(12) == 0 ? 0 : 1 + below(shape.size() > 3 ? 5 : 40);
    }
    const DType dtype = kAllDTypes[below(kAllDTypes.size())];
    const bool scalar = shape.empty();  // safetensors has none of two elements
    tensors.push_back(make_tensor(name, scalar && dtype == DType::kF4 ? DType::kU8 : dtype, std::move(shape)));
  }
  return make_model(std::move(tensors));
}

Encoding copy_encoding(const TensorInfo& tensor, uint64_t unit_elements) {
  Encoding encoding;
  const uint64_t unit_bytes = unit_elements * item_bytes(tensor.dtype);
  encoding.stored.push_back(produced(tensor.name, tensor.dtype, tensor.shape, unit_bytes));
  encoding.source_dtype = tensor.dtype;
  encoding.source_bytes = tensor.data.size;
  encoding.source_bytes_per_unit = unit_bytes;
  encoding.row_elements = unit_elements;
  return encoding;
}

Encoding int8_encoding(const TensorInfo& tensor) {
  if (tensor.shape.size() != 2 || !is_wide_float(tensor.dtype) || tensor.data.empty()) {
    return copy_encoding(tensor);
  }
  const uint64_t rows = tensor.shape[0];
  const uint64_t columns = tensor.shape[1];
  Encoding encoding = copy_encoding(tensor, columns);
  encoding.quantized = true;
  encoding.stored = {produced(tensor.name, DType::kI8, tensor.shape, columns),
                     produced(tensor.name + "_scale", DType::kF32, {rows, 1}, 4),
                     constant(tensor.name + "_state", DType::kU8, {21}, R"({"quant_type":"int8"})")};
  return encoding;
}

Encoding odd_encoding(const TensorInfo& tensor) {
  constexpr uint64_t kUnitElements = 7;
  constexpr uint64_t kUnitSource = uint64_t{3} << 20;
  const uint64_t elements = tensor.element_count();
  const uint64_t units = ceil_div(elements, kUnitElements);
  Encoding encoding;
  encoding.quantized = true;
  encoding.source_bytes = units * kUnitSource;
  encoding.source_bytes_per_unit = kUnitSource;
  encoding.row_elements = kUnitElements;
  if (tensor.shape.size() == 1) {
    encoding.stored = {constant(tensor.name + ".table", DType::kF32, {2, 3}, std::string(24, 'c')),
                       constant(tensor.name + ".shape", DType::kI64, {1}, std::string("\x05\0\0\0\0\0\0\0", 8)),
                       produced(tensor.name + ".none", DType::kBF16, {0, 3}, 2)};
    return encoding;
  }
  encoding.stored = {produced(tensor.name + ".f8", DType::kF8E4M3, tensor.shape, kUnitElements),
                     constant(tensor.name + ".state", DType::kU8, {3}, "abc"),
                     produced(tensor.name + ".sum", DType::kU64, {units}, 8),
                     produced(tensor.name + ".none", DType::kF8E5M2, {3, 0, 2}, 0),
                     produced(tensor.name + ".half", DType::kU16, {1, units}, 2)};
  return encoding;
}

}  // namespace qcache

#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/source_model.h"
#include "core/quant/encoding.h"

namespace qcache {

// What schemes are put together from.

/// The tensor as it is, under its own name.
[[nodiscard]] Encoding copy_encoding(const TensorInfo& tensor);

/// The tensor cast to BF16, F16 or F32 where it is a wide float of another type; else a copy.
[[nodiscard]] Encoding cast_encoding(const TensorInfo& tensor, DType target);

/// A 2-D tensor quantized row by row. `stored` are the tensors made by `encode`, each with the same number
/// of bytes for every row, and constants.
[[nodiscard]] Encoding row_encoding(const TensorInfo& tensor, EncodeFunction encode, DecodeFunction decode,
                                    std::vector<StoredTensor> stored);

/// One produced tensor of a row encoding: bytes_per_unit follows from the shape and the number of rows.
[[nodiscard]] StoredTensor stored_per_row(const TensorInfo& source, std::string name, DType dtype, Shape shape);

/// A tensor whose bytes are known from the plan.
[[nodiscard]] StoredTensor stored_constant(std::string name, DType dtype, Shape shape, std::string bytes);

/// A tensor that unit 0 makes from the survey; `once` returns as many bytes as the shape says.
[[nodiscard]] StoredTensor stored_once(std::string name, DType dtype, Shape shape,
                                       std::function<std::string(const Survey&)> once);

[[nodiscard]] std::string constant_int64s(std::initializer_list<uint64_t> values);

/// The values as BF16, F16 or F32 bytes.
[[nodiscard]] std::string constant_bytes(DType dtype, std::span<const float> values);

/// Why no scheme serves this model: its weights are quantized already.
[[nodiscard]] std::optional<std::string> refuse_quantized(const SourceModel& model);

/// Why no scheme of compressed-tensors or bitsandbytes serves this model, `scheme` among them: its weights are
/// quantized already, or it is a Llama 4 whose experts are stored together.
[[nodiscard]] std::optional<std::string> refuse_quantized_or_joined(const SourceModel& model, std::string_view scheme);

}  // namespace qcache

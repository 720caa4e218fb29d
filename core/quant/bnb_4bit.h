#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/model/source_model.h"
#include "core/quant/encoding.h"

namespace qcache {

// What bitsandbytes' 4-bit schemes share.

/// Whether its modules can load `tensor`: a linear layer, no expert, and whole blocks in every row; its CPU kernels
/// fail on other shapes.
[[nodiscard]] bool fits_bnb_4bit(const SourceModel& model, const TensorInfo& tensor);

/// What it needs to know of a weight to restore it, as its own save writes it, without the closing brace.
[[nodiscard]] std::string open_quant_state(std::string_view quant_type, const TensorInfo& tensor);

/// Codes, absmaxes, the code table and the quant state of a weight with one F32 absmax per block.
[[nodiscard]] std::vector<StoredTensor> bnb_4bit_tensors(std::string_view quant_type, std::span<const float> values,
                                                         const TensorInfo& tensor);

}  // namespace qcache

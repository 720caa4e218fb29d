#pragma once

#include "core/model/source_model.h"

namespace qcache {

/// The tensor's own name without ".weight", or an empty view where it is not a weight.
[[nodiscard]] std::string_view module_of_weight(const TensorInfo& tensor);

/// Whether `tensor` is the weight of a linear layer that may be quantized: a 2-D wide-float `*.weight` with
/// both sides >= 16, not an embedding, norm, router, output head or classifier by its name, not the Conv1D
/// of GPT-2-like models, not T5's `wo`. A name the rules are unsure of is dense: dense always loads.
[[nodiscard]] bool is_quantizable_linear(const SourceModel& model, const TensorInfo& tensor);

/// Whether the tensor belongs to an expert of a mixture of experts.
[[nodiscard]] bool is_expert(const TensorInfo& tensor);

}  // namespace qcache

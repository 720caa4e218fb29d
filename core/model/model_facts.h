#pragma once

#include <string_view>
#include <vector>

#include "core/model/source_model.h"
#include "core/model/tensor.h"

namespace qcache {

/// The facts in the text of a config.json. Never fails: what cannot be read is told in `config_problem`. Facts
/// of a part for text (`text_config` of multimodal models) count where the whole has none.
[[nodiscard]] ModelFacts parse_model_facts(std::string_view config_json);

/// Adds what the tensors' names and dtypes tell where the config is silent: experts, and weights that are
/// quantized already.
void add_tensor_facts(const std::vector<TensorInfo>& tensors, ModelFacts& facts);

}  // namespace qcache

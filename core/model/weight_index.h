#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/result.h"

namespace qcache {

/// `model.safetensors.index.json` or `pytorch_model.bin.index.json`: which shard holds which tensor.
struct WeightIndex {
  std::vector<std::string> shards;                              ///< plain file names, sorted, unique
  std::vector<std::pair<std::string, std::string>> weight_map;  ///< tensor name -> shard, sorted by name
};
/// Rejects names with a path separator or "..", tensors in two files, and anything that is not string -> string.
Result<WeightIndex> parse_weight_index(std::string_view json);

}  // namespace qcache

#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"

namespace qcache {

/// Whether `name` names a file inside whatever folder it is joined to: not empty, at most 255 bytes, no
/// separator of any system, not "." or "..".
[[nodiscard]] bool is_plain_file_name(std::string_view name);

/// Whether a folder with these names in it holds weights that qcache can read.
[[nodiscard]] bool holds_weights(const std::vector<std::string>& names);

/// Which files of a folder are its weights, and how to read them. The one place that knows the order of
/// preference among formats.
struct WeightFiles {
  enum class Layout {
    kSingle,   ///< model.safetensors
    kIndexed,  ///< model.safetensors.index.json names the shards
    kLoose,    ///< every *.safetensors below
  };
  Layout layout = Layout::kLoose;
  std::vector<std::string> names;  ///< file names, sorted; empty for kIndexed
};

/// Chooses from the names in a folder. `model.safetensors` comes before the index, as in transformers. Without
/// either, all *.safetensors files together are the model, except
///   - a variant `x.fp16.safetensors` beside `x.safetensors`: the same tensors in another dtype (any word
///     without a dot, also where one or both are sharded);
///   - `adapter_model.safetensors` beside other weights: what a LoRA training leaves in its base model's
///     folder. Alone in a folder it is the model.
/// kNotFound where there are no weights; kInvalidModel where some of `x-0000i-of-0000n` are missing.
Result<WeightFiles> choose_weight_files(const std::vector<std::string>& names);

constexpr const char* kSingleFileName = "model.safetensors";
constexpr const char* kIndexFileName = "model.safetensors.index.json";

}  // namespace qcache

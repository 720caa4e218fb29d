#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"

namespace qcache {

/// Whether `name` names a file inside whatever folder it is joined to: not empty, at most 255 bytes, no
/// separator of any system, not "." or "..".
[[nodiscard]] bool is_plain_file_name(std::string_view name);

/// Formats of weight files, each with a reader of its own.
enum class WeightFormat {
  kSafetensors,
  kTorch,  ///< what torch.save writes
};

/// Which files of a folder are its weights, and how to read them. The one place that knows the order of
/// preference among formats.
struct WeightFiles {
  WeightFormat format = WeightFormat::kSafetensors;
  std::vector<std::string> names;    ///< file names, sorted; empty where an index names them
  std::string index;                 ///< the file name of the index; empty where there is none
  std::vector<std::string> earlier;  ///< names that would have been chosen before, had they been there
};

/// Chooses from the names in a folder. The first of these that is there is the model:
///   1. model.safetensors
///   2. model.safetensors.index.json, which names the files
///   3. pytorch_model.bin
///   4. pytorch_model.bin.index.json
///   5. all other *.safetensors together
///   6. all other *.bin, *.pt and *.pth together
/// This is transformers' own order, to which the last two are added. Left out of the last two are
///   - a variant `x.fp16.safetensors` beside `x.safetensors`: the same tensors in another dtype (any word
///     without a dot, also where one or both are sharded);
///   - `adapter_model.safetensors` (`.bin`) beside other weights: what a LoRA training leaves in its base model's
///     folder. Alone in a folder it is the model;
///   - what a training leaves beside its weights: training_args, optimizer, scheduler, scaler, rng_state* and the like.
/// kNotFound where there are no weights; kInvalidModel where some of `x-0000i-of-0000n` are missing.
Result<WeightFiles> choose_weight_files(const std::vector<std::string>& names);

/// What a folder's names tell of weights in it.
enum class WeightSigns {
  kNone,
  kLooseTorch,  ///< weights of the last kind only: names that files of other kinds have, too
  kSure,
};
[[nodiscard]] WeightSigns weight_signs(const std::vector<std::string>& names);

}  // namespace qcache

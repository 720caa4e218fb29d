#pragma once

#include <string>
#include <vector>

#include "core/layout/layout_plan.h"
#include "core/quant/scheme.h"

namespace qcache {

/// What qcache itself puts into a model's folder for one dtype, beside the files that are passed through from the
/// source: the name of the weights file, and small text files, sorted by name.
struct ModelFolder {
  std::string weights_file;
  std::vector<FolderFile> files;
};

/// Plans the folder that `reader` loads `model` from when its weights are `plan`, which must be a plan of `scheme`.
///
///   config.json   the source's, with the `quantization_config` of the scheme and the dtype of what is not quantized;
///                 absent where the source has none or a broken one
///   qcache.json   what made this folder: dtype, scheme version, source files with sizes and header digests
///   and what the scheme adds
/// Fails with kUnsupported where `reader` cannot load this dtype. Pure.
Result<ModelFolder> plan_model_folder(const SourceModel& model, const Scheme& scheme, const LayoutPlan& plan,
                                      FolderReader reader);

/// The modules of a planned model, by whether they are quantized; with the output heads that have no tensor.
[[nodiscard]] StoredModel describe_stored(const SourceModel& model, const Scheme& scheme, const LayoutPlan& plan);

}  // namespace qcache

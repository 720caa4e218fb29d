#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/layout/adapter_folder.h"
#include "core/quant/scheme.h"

namespace qcache {

/// What qcache itself puts into a model's folder `<rank>/` for one dtype, beside the files that are passed through from
/// the source and those of containers: small text files.
struct ModelFolder {
  std::string component;          ///< SourceModel::component
  std::vector<FolderFile> files;  ///< sorted by name, which is the path below `<rank>/`
  /// Folders below `<rank>/` that hold nothing of the source's, and so hide what it has under their names.
  std::vector<std::string> own_folders;
};

/// Whether `file` is the one that tells what made the folder.
[[nodiscard]] bool is_description(const FolderFile& file);

/// Plans the folder that transformers, or diffusers where `model` is a pipeline's component, loads when its weights are
/// stored in `scheme`, which must serve the model. `rank` is that of the adapter, `base_path` as for
/// plan_adapter_folder().
///
///   config.json   the source's, with the `quantization_config` of the scheme and the dtype of what is not quantized;
///                 absent where the source has none or a broken one
///   qcache.json   what made this folder: dtype, scheme version, rank, source files with sizes and header digests
///   and what the scheme adds
/// Fails with kUnsupported where that library cannot load this dtype, or the model has more modules than it could
/// find. Pure.
Result<ModelFolder> plan_model_folder(const SourceModel& model, const Scheme& scheme, uint32_t rank,
                                      const std::string& base_path);

/// Why `model` is not served in `scheme` at all (one sentence), or nothing where it is: the scheme refuses it, or the
/// only library that loads such models cannot load this dtype.
[[nodiscard]] std::optional<std::string> why_not_served(const SourceModel& model, const Scheme& scheme);

}  // namespace qcache

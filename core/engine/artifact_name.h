#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/base/digest.h"
#include "core/layout/containers.h"
#include "core/model/source_model.h"
#include "core/quant/scheme.h"
#include "core/store/record.h"

namespace qcache {

/// Which file of the mount.
struct ArtifactName {
  std::string model;
  const Scheme* scheme = nullptr;
  uint32_t rank = 0;  ///< one that the container has a file of its own for
  const Container* container = &container_checkpoint();
  std::string component{};  ///< where the model is a pipeline, its subfolder with the weights; names the file only

  /// `<rank>.bin` and so on: Container::path_of().
  [[nodiscard]] std::string file() const { return container->path_of(rank, component); }
  /// `<model>/<dtype>/<file>`.
  [[nodiscard]] std::string virtual_path() const;
};

/// The weights that a folder `<model>/<dtype>/<rank>/` shows.
[[nodiscard]] ArtifactName weights_of_folder(std::string model, const Scheme& scheme, uint32_t rank);

/// What an ArtifactName::virtual_path() names. The dtype is text, because a newer qcache may have made the file.
struct ArtifactPath {
  std::string model;
  std::string dtype;
  uint32_t rank = 0;
  const Container* container = nullptr;
};
[[nodiscard]] std::optional<ArtifactPath> parse_artifact_path(std::string_view path);

/// The file name in the cache directory that an artifact of the model in folder `model_path` goes by, whichever recipe
/// makes it.
[[nodiscard]] std::string base_file_name_of(const ArtifactName& name, std::string_view model_path);
/// The same for what a path in a mount names. Whichever name the model has there, the folder decides.
[[nodiscard]] std::string base_file_name_of(const ArtifactPath& path, std::string_view model_path);

/// The digest over what decides an artifact's bytes but the state of the source: scheme, layout, their versions.
[[nodiscard]] Sha256Digest method_of(const ArtifactName& name);
/// The digest over everything that decides an artifact's bytes. Equal recipes make equal bytes. The name by which the
/// model is shown is no part of it.
[[nodiscard]] Sha256Digest recipe_of(const ArtifactName& name, const SourceModel& model);
/// Whether the file of `record` is what `model` makes now. kUnsupported where a newer qcache made it.
Result<bool> is_made_of(const Record& record, const SourceModel& model);

}  // namespace qcache

#pragma once

#include <string>
#include <vector>

#include "tools/command.h"
#include "tools/named_files.h"

namespace qcache {

/// What the commands on models know of their surroundings.
struct Surroundings {
  CommandContext& context;
  Mounts mounts;
  std::string cache_directory;

  /// As choose_cache_directory().
  static Result<Surroundings> look_around(CommandContext& context, const std::string& cache_dir_option);

  /// As resolve_names; what a running mount shows becomes a MountPath, and a name that none knows may be that of a
  /// folder in the working directory.
  [[nodiscard]] Result<NamedFiles> resolve(const NameWords& words) const;
};

[[nodiscard]] Error unknown_model(const std::string& name);
[[nodiscard]] Error no_weights(const FolderPath& folder);
/// The error of reading a model, as one of the model: that its files may not be read says nothing of the cache
/// directory.
[[nodiscard]] Error of_model(Error error);

}  // namespace qcache

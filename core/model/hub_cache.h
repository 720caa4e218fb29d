#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "core/base/env.h"
#include "core/base/result.h"

namespace qcache {

// The layout of a Hugging Face hub cache:
//   models--org--name/refs/main                 text: a commit
//   models--org--name/snapshots/<commit>/x      link to ../../blobs/<etag>
//   models--org--name/blobs/<etag>              the files

/// A folder inside a snapshot of a hub cache.
struct HubLocation {
  std::string repo_folder;  ///< ".../models--org--name"
  std::string repo_name;    ///< "org--name"
};
/// Where `path` (links resolved) lies in a hub cache; none where it is not inside a snapshot of one.
[[nodiscard]] std::optional<HubLocation> hub_location(std::string_view path);

inline constexpr std::string_view kHubModelPrefix = "models--";

/// "org--name" for "models--org--name", empty for other folder names.
[[nodiscard]] std::string_view hub_repo_name(std::string_view folder_name);

/// The folder of the current snapshot: the one that refs/main names, else the most recently changed one;
/// none where there is no snapshot.
Result<std::optional<std::string>> current_snapshot(Env& env, const std::string& repo_folder);

}  // namespace qcache

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/env.h"
#include "core/base/mount_info.h"
#include "tools/command.h"

namespace qcache {

/// A qcache mount that answers.
struct RunningMount {
  std::string mount_point;
  std::string cache_directory;
  bool own = false;  ///< this user mounted it
};

/// The qcache mounts in the context's table that answer. Dead ones are left out, and with a warning those that do not
/// answer within a moment, because their daemon is stopped.
[[nodiscard]] std::vector<RunningMount> running_mounts(CommandContext& context);

/// A place in a mount: the names below its mount point, at most model, dtype and file.
struct MountPath {
  RunningMount mount;
  std::vector<std::string> names;

  [[nodiscard]] std::string full_path() const;
};

/// Where in one of the mounts `path` is, be it there or not; none where it is outside them all.
[[nodiscard]] std::optional<MountPath> locate_in_mounts(Env& env, const std::string& path,
                                                        const std::vector<RunningMount>& mounts);

/// "a/b//c" -> a, b, c.
[[nodiscard]] std::vector<std::string> split_path(std::string_view path);

}  // namespace qcache

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

/// A qcache mount.
struct RunningMount {
  std::string mount_point;
  std::string cache_directory;
  bool own = false;     ///< this user mounted it
  bool answers = true;  ///< else its daemon is stopped: nothing else is known of it, and nothing in it may be asked for
};

/// The qcache mounts in the context's table, without the dead ones; with a warning for those that do not answer within
/// a moment.
[[nodiscard]] std::vector<RunningMount> running_mounts(CommandContext& context);

/// A place in a mount: the names below its mount point, at most model, dtype and file.
struct MountPath {
  RunningMount mount;
  std::vector<std::string> names;

  [[nodiscard]] std::string full_path() const;
};

/// An error where `path`, as it is written, lies in a mount that does not answer.
Status refuse_silent_mount(const std::string& path, const std::vector<RunningMount>& mounts);

/// Where in one of the mounts `path` is, be it there or not; none where it is outside them all.
[[nodiscard]] std::optional<MountPath> locate_in_mounts(Env& env, const std::string& path,
                                                        const std::vector<RunningMount>& mounts);

/// "a/b//c" -> a, b, c.
[[nodiscard]] std::vector<std::string> split_path(std::string_view path);

}  // namespace qcache

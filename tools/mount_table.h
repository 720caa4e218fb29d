#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/env.h"
#include "core/base/mount_info.h"

namespace qcache {

struct CommandContext;

/// A qcache mount that answers.
struct RunningMount {
  std::string mount_point;
  std::string cache_directory;
  bool own = false;      ///< this user mounted it
  std::string status{};  ///< its /.qcache/status
};

/// The qcache mounts of a machine.
struct Mounts {
  std::vector<RunningMount> running;
  /// The mount points of those that did not answer within a moment, because their daemon is stopped: whoever asks for
  /// anything in them waits without end.
  std::vector<std::string> silent;
  std::string own_silent;           ///< one of them that this user has mounted; empty where there is none
  std::vector<std::string> dead;    ///< of those whose daemon is gone
  std::vector<std::string> closed;  ///< of those that let this user not look
};

/// Those that this user has mounted.
[[nodiscard]] std::vector<RunningMount> own_mounts(const Mounts& mounts);
/// The first mount of each cache directory.
[[nodiscard]] std::vector<RunningMount> one_of_each_cache(const std::vector<RunningMount>& mounts);

/// Those in the context's table (/proc/self/mountinfo). Warns of the silent ones.
[[nodiscard]] Mounts find_mounts(CommandContext& context);

/// A place in a mount: the names below its mount point, at most model, dtype and file.
struct MountPath {
  RunningMount mount;
  std::vector<std::string> names;

  [[nodiscard]] std::string full_path() const;
};

/// The error of a dead mount, with the way out.
[[nodiscard]] Error dead_mount(const std::string& mount_point);

/// Fails where `path`, as it is written, lies in a mount that cannot be used: kBusy for a silent one, dead_mount(),
/// kNotFound for one that lets this user not look.
Status refuse_unusable_mount(const std::string& path, const Mounts& mounts);

/// kBusy where one of `paths` is, or lies below, the mount point of a silent mount. Asks only those mounts.
Status refuse_silent_mounts(CommandContext& context, const std::vector<std::string>& paths);
/// The same, but a mount point itself is no obstacle: for who does not look at what is mounted there.
Status refuse_below_silent_mounts(CommandContext& context, const std::vector<std::string>& paths);

/// Where in one of the mounts `path` is, be it there or not; none where it is outside them all.
[[nodiscard]] std::optional<MountPath> locate_in_mounts(Env& env, const std::string& path,
                                                        const std::vector<RunningMount>& mounts);

/// `path` absolute, with "." and ".." resolved as text, so that nothing is asked: mount points are told by such paths.
[[nodiscard]] std::string absolute_text(const std::string& path);

/// "a/b//c" -> a, b, c.
[[nodiscard]] std::vector<std::string> split_path(std::string_view path);

}  // namespace qcache

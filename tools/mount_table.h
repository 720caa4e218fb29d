#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/env.h"

namespace qcache {

/// One line of /proc/self/mountinfo (proc(5)), decoded.
struct MountEntry {
  std::string root;  ///< what of the filesystem is mounted: "/", or a folder in it for a bind mount
  std::string mount_point;
  std::string type;                 ///< "fuse.qcache"
  std::optional<uint32_t> user_id;  ///< who mounted it (FUSE only)
};

/// The mounts that can be reached: where several lie on one mount point, the last covers the others. Lines that are not
/// understood are left out.
[[nodiscard]] std::vector<MountEntry> parse_mount_info(std::string_view text);

/// A qcache mount that answers.
struct RunningMount {
  std::string mount_point;
  std::string cache_directory;
  bool own = false;  ///< this user mounted it
};

/// The qcache mounts in the file `table` (/proc/self/mountinfo) that answer; dead ones are left out.
[[nodiscard]] std::vector<RunningMount> running_mounts(Env& env, const std::string& table);

/// A place in a mount: the names below its mount point, at most model, dtype and file.
struct MountPath {
  RunningMount mount;
  std::vector<std::string> names;

  [[nodiscard]] std::string full_path() const;
};

/// Where in one of the mounts `path` is, be it there or not; none where it is outside them all.
[[nodiscard]] std::optional<MountPath> locate_in_mounts(Env& env, const std::string& path,
                                                        const std::vector<RunningMount>& mounts);

/// The text of a small file that need not know its size (as in /proc); what is beyond `limit` bytes is left out.
Result<std::string> read_text(Env& env, const std::string& path, size_t limit = size_t{1} << 20U);

/// "a/b//c" -> a, b, c.
[[nodiscard]] std::vector<std::string> split_path(std::string_view path);

}  // namespace qcache

#pragma once

#include <optional>
#include <string>

#include "core/base/env.h"
#include "core/base/result.h"

namespace qcache {

// Files of a cache directory, which may be absent: other processes make and remove names in it at any time. They are
// regular files. A link, a folder, a pipe of such a name is somebody else's and no such file: what a link leads to is
// never looked at, and no pipe is waited for.

/// As Env::open. What is not a regular file is kNotFound; with O_CREAT kCorrupt, as it is in the way.
Result<UniqueFd> open_named(Env& env, const std::string& path, int flags, mode_t mode = 0);

/// A new, empty file in the place of whatever has the name (no folder), be it a link or one of several names of a file:
/// that stays as it is elsewhere.
Result<UniqueFd> begin_named(Env& env, const std::string& path, mode_t mode);

/// Nothing where there is no such file.
Result<std::optional<FileStat>> stat_if_there(Env& env, const std::string& path);

/// Whether something that is no such file has the name.
Result<bool> is_taken_by_others(Env& env, const std::string& path);

/// Removes a file, or what has its name and is no folder; that it is already gone is fine.
Status remove_if_there(Env& env, const std::string& path);

/// Whether `path` is (still) the name of the file that is open as `fd`.
Result<bool> leads_to(Env& env, const std::string& path, int fd);

}  // namespace qcache

#pragma once

#include <optional>
#include <string>

#include "core/base/env.h"
#include "core/base/result.h"

namespace qcache {

// Files that may be absent: other processes make and remove names in a cache directory at any time. A folder of that
// name is somebody else's, and no such file.

/// Nothing where there is no such file.
Result<std::optional<FileStat>> stat_if_there(Env& env, const std::string& path);

/// Removes a file; that it is already gone is fine.
Status remove_if_there(Env& env, const std::string& path);

/// Whether `path` is (still) the name of the file that is open as `fd`.
Result<bool> leads_to(Env& env, const std::string& path, int fd);

}  // namespace qcache

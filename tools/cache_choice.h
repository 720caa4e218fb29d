#pragma once

#include <memory>
#include <string>

#include "core/store/store.h"
#include "tools/mount_table.h"

namespace qcache {

/// The cache directory that a command means: `option` (--cache-dir), else $QWEN_CACHE, else the one that this user's
/// running mounts use if that is one, else the default. kBusy where it lies in a silent mount.
Result<std::string> choose_cache_directory(const std::string& option, const Mounts& mounts);

/// Opens a cache directory; kNotFound where there is none, with a sentence that says how to choose another.
Result<std::shared_ptr<Store>> open_cache(Env& env, const std::string& directory);
/// The same for commands that can do nothing without one: kCacheUnusable where there is none.
Result<std::shared_ptr<Store>> open_needed_cache(Env& env, const std::string& directory);

}  // namespace qcache

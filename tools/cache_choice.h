#pragma once

#include <memory>
#include <optional>
#include <string>

#include "core/store/store.h"
#include "tools/mount_table.h"

namespace qcache {

struct CommandContext;

/// The cache directory that a command means which names nothing: `option` (--cache-dir), else $QWEN_CACHE, else the one
/// that all running mounts of this user use, else the default. Says so on standard error where the running mounts use
/// another. kInvalidArgument where this user's mounts use several; fails as refuse_unusable_mount().
Result<std::string> choose_cache_directory(CommandContext& context, const std::string& option, const Mounts& mounts);

/// $QWEN_CACHE, where it is set.
[[nodiscard]] std::optional<std::string> directory_of_environment();

/// kBusy where a mount of this user's does not answer, which may use another cache directory than those that do.
Status refuse_to_guess(const Mounts& mounts);

/// Whether both texts lead to one folder, be it there or not.
[[nodiscard]] bool is_same_folder(const std::string& a, const std::string& b);

/// Opens a cache directory; kNotFound where there is none, with a sentence that says how to choose another.
Result<std::shared_ptr<Store>> open_cache(Env& env, const std::string& directory);
/// The same for commands that can do nothing without one: kCacheUnusable where there is none.
Result<std::shared_ptr<Store>> open_needed_cache(Env& env, const std::string& directory);

}  // namespace qcache

#include "tools/cache_choice.h"

#include <algorithm>
#include <cstdlib>

namespace qcache {
namespace {

bool environment_chooses() {
  const char* const value = std::getenv("QWEN_CACHE");  // NOLINT(concurrency-mt-unsafe): nobody sets variables
  return value != nullptr && *value != '\0';
}

std::string chosen(const std::string& option, const std::vector<RunningMount>& mounts) {
  if (!option.empty()) {
    return option;
  }
  if (!environment_chooses()) {
    // Mounts of others are not asked: what root has mounted for everybody is not ours to drop.
    const auto own = std::find_if(mounts.begin(), mounts.end(), [](const RunningMount& mount) { return mount.own; });
    const bool agreed = own != mounts.end() && std::all_of(own, mounts.end(), [&](const RunningMount& mount) {
                          return !mount.own || mount.cache_directory == own->cache_directory;
                        });
    if (agreed) {
      return own->cache_directory;
    }
  }
  return default_cache_directory();
}

}  // namespace

Result<std::string> choose_cache_directory(const std::string& option, const Mounts& mounts) {
  std::string directory = chosen(option, mounts.running);
  QCACHE_TRY(refuse_silent_mount(directory, mounts));
  return directory;
}

Result<std::shared_ptr<Store>> open_needed_cache(Env& env, const std::string& directory) {
  auto opened = open_cache(env, directory);
  return opened ? std::move(opened) : fail(cache_unusable(std::move(opened).error()));
}

Result<std::shared_ptr<Store>> open_cache(Env& env, const std::string& directory) {
  QCACHE_TRY_ASSIGN(CacheDirectory found, CacheDirectory::open_existing(env, directory));
  return Store::open(env, std::move(found));
}

}  // namespace qcache

#include "tools/cache_choice.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <ostream>
#include <system_error>

#include <fmt/format.h>

#include "tools/command.h"
#include "tools/human_text.h"

namespace qcache {
namespace {

std::string where_in_use(const RunningMount& mount) {
  return fmt::format("{} ({})", printable(mount.cache_directory), printable(mount.mount_point));
}

void tell_of_another(CommandContext& context, const std::string& directory, const std::vector<RunningMount>& others) {
  const bool is_in_use = std::any_of(others.begin(), others.end(), [&](const RunningMount& mount) {
    return is_same_folder(mount.cache_directory, directory);
  });
  if (!others.empty() && !is_in_use) {
    context.err << fmt::format("qcache: this is about {}; a running mount uses {}, which --cache-dir chooses\n",
                               printable(directory), where_in_use(others[0]));
  }
}

}  // namespace

std::optional<std::string> directory_of_environment() {
  const char* const value = std::getenv("QWEN_CACHE");  // NOLINT(concurrency-mt-unsafe): nobody sets variables
  return value != nullptr && *value != '\0' ? std::optional<std::string>(value) : std::nullopt;
}

Status refuse_to_guess(const Mounts& mounts) {
  if (mounts.own_silent.empty()) {
    return {};
  }
  return fail(ErrorKind::kBusy,
              fmt::format("the mount on {} does not answer, so that nobody knows which cache directory "
                          "is meant: say which with --cache-dir",
                          printable(mounts.own_silent)));
}

bool is_same_folder(const std::string& a, const std::string& b) {
  std::error_code ignored;
  return a == b || std::filesystem::weakly_canonical(a, ignored) == std::filesystem::weakly_canonical(b, ignored);
}

Result<std::string> choose_cache_directory(CommandContext& context, const std::string& option, const Mounts& mounts) {
  std::string directory = option;
  // Mounts of others are not asked: what root has mounted for everybody is not ours to drop.
  const std::vector<RunningMount> own = own_mounts(mounts);
  if (!option.empty()) {
    QCACHE_TRY(refuse_unusable_mount(directory, mounts));
    return directory;
  }
  if (directory_of_environment() || own.empty()) {
    directory = default_cache_directory();
    QCACHE_TRY(refuse_unusable_mount(directory, mounts));
    if (directory_of_environment() || context.env.stat(directory)) {
      tell_of_another(context, directory, own);
    } else {
      tell_of_another(context, directory, mounts.running);  // what root has mounted for everybody may be meant
    }
    return directory;
  }
  QCACHE_TRY(refuse_to_guess(mounts));
  if (const std::vector<RunningMount> each = one_of_each_cache(own); each.size() > 1) {
    std::vector<std::string> places;
    std::transform(each.begin(), each.end(), std::back_inserter(places), where_in_use);
    return fail(ErrorKind::kInvalidArgument,
                fmt::format("your mounts use several cache directories, {}: say which with --cache-dir",
                            fmt::join(places, ", ")));
  }
  QCACHE_TRY(refuse_unusable_mount(own[0].cache_directory, mounts));
  return own[0].cache_directory;
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

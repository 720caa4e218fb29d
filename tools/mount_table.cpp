#include "tools/mount_table.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <memory>
#include <ostream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/base/mutex.h"
#include "core/engine/helper_threads.h"
#include "core/model/text.h"
#include "tools/command.h"
#include "tools/exit_code.h"
#include "tools/human_text.h"

namespace qcache {

namespace {

/// What mounts answer when they are asked for their status. Shared with the threads that ask, some
/// of which may outlive the command: a daemon that is stopped answers nobody.
struct Answers {
  explicit Answers(size_t mounts) : texts(mounts), waited_for(mounts) {}

  Mutex mutex;
  CondVar arrived;
  // By mount: its status. Unset while it has not answered.
  std::vector<std::optional<Result<std::string>>> texts QCACHE_GUARDED_BY(mutex);
  size_t waited_for QCACHE_GUARDED_BY(mutex);
};

/// Empty where it is not the status of a qcache daemon.
std::string cache_directory_in(const std::string& status) {
  const auto json = nlohmann::json::parse(status, nullptr, false);
  const auto directory = json.is_object() ? json.find("cache_dir") : json.end();
  return json.is_object() && directory != json.end() && directory->is_string() ? directory->get<std::string>() : "";
}

std::vector<MountEntry> qcache_mounts(const CommandContext& context) {
  constexpr size_t kMaxTableBytes = size_t{16} << 20U;
  const auto text = read_text(context.env, context.mount_table, kMaxTableBytes);
  std::vector<MountEntry> mounts = parse_mount_info(text.value_or(""));
  std::erase_if(mounts, [](const MountEntry& entry) { return entry.type != kQcacheMountType || entry.root != "/"; });
  return mounts;
}

Mounts ask(CommandContext& context, const std::vector<MountEntry>& mounts) {
  constexpr unsigned kThreads = 16;
  constexpr std::chrono::seconds kPatience{2};
  const auto answers = std::make_shared<Answers>(mounts.size());
  HelperThreads threads(kThreads);
  for (size_t i = 0; i < mounts.size(); ++i) {
    threads.run([answers, &env = context.env, mount_point = mounts[i].mount_point, i] {
      auto text = read_text(env, mount_point + "/.qcache/status");
      const MutexLock lock(answers->mutex);
      answers->texts[i] = std::move(text);
      --answers->waited_for;
      answers->arrived.notify_all();
    });
  }
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  Mounts out;
  const MutexLock lock(answers->mutex);
  while (answers->waited_for > 0 && std::chrono::steady_clock::now() < deadline) {
    answers->arrived.wait_for(answers->mutex, deadline - std::chrono::steady_clock::now());
  }
  for (size_t i = 0; i < mounts.size(); ++i) {
    const std::string& mount_point = mounts[i].mount_point;
    const bool is_own = mounts[i].user_id == ::geteuid();
    const std::optional<Result<std::string>>& text = answers->texts[i];
    if (!text) {
      context.err << fmt::format(
          "qcache: the mount on {} has not answered for {} s and is left out: is its daemon stopped?\n",
          in_quotes(mount_point), kPatience.count());
      out.silent.push_back(mount_point);
      out.own_silent = is_own ? mount_point : out.own_silent;
    } else if (!*text && is_dead_mount(text->error())) {
      out.dead.push_back(mount_point);
    } else if (!*text && text->error().kind == ErrorKind::kPermission) {
      out.closed.push_back(mount_point);
    } else if (std::string directory = cache_directory_in(text->value_or("")); !directory.empty()) {
      out.running.push_back({mount_point, std::move(directory), is_own, **text});
    }
  }
  return out;
}

}  // namespace

Mounts find_mounts(CommandContext& context) {
  return ask(context, qcache_mounts(context));
}

std::vector<RunningMount> own_mounts(const Mounts& mounts) {
  std::vector<RunningMount> own = mounts.running;
  std::erase_if(own, [](const RunningMount& mount) { return !mount.own; });
  return own;
}

std::vector<RunningMount> one_of_each_cache(const std::vector<RunningMount>& mounts) {
  std::vector<RunningMount> out;
  for (const RunningMount& mount : mounts) {
    if (std::ranges::find(out, mount.cache_directory, &RunningMount::cache_directory) == out.end()) {
      out.push_back(mount);
    }
  }
  return out;
}

std::string MountPath::full_path() const {
  std::string path = mount.mount_point;
  for (const std::string& name : names) {
    path += '/' + name;
  }
  return path;
}

std::string absolute_text(const std::string& path) {
  std::error_code ignored;
  std::string absolute = std::filesystem::absolute(path, ignored).lexically_normal().string();
  if (absolute.size() > 1 && absolute.ends_with('/')) {
    absolute.pop_back();
  }
  return absolute;
}

Error dead_mount(const std::string& mount_point) {
  return Error{
      ErrorKind::kIo, ENOTCONN,
      fmt::format("the mount on {0} is dead, as its daemon has ended: 'qcache unmount {0}' clears it, and a new "
                  "'qcache mount' there does so by itself",
                  printable(mount_point))};
}

Status refuse_unusable_mount(const std::string& path, const Mounts& mounts) {
  const std::string absolute = absolute_text(path);
  const auto holds_it = [&](const std::string& mount_point) { return lies_within(absolute, mount_point); };
  if (std::any_of(mounts.silent.begin(), mounts.silent.end(), holds_it)) {
    return fail(
        ErrorKind::kBusy,
        fmt::format("{} lies in a mount that does not answer: let its daemon go on, or end it", in_quotes(path)));
  }
  const auto closed = std::find_if(mounts.closed.begin(), mounts.closed.end(), holds_it);
  if (closed != mounts.closed.end()) {
    return fail(ErrorKind::kNotFound,
                fmt::format("{} lies in the mount of another user on {}, who lets nobody else look: ask for "
                            "--allow-other there",
                            in_quotes(path), printable(*closed)));
  }
  const auto dead = std::find_if(mounts.dead.begin(), mounts.dead.end(), holds_it);
  return dead == mounts.dead.end() ? Status() : fail(dead_mount(*dead));
}

namespace {

// Asks those of `mounts` that the paths lie in. A mount that has come since is not asked: `qcache mount` forks later,
// and so begins no thread that it can do without.
Status refuse_silent(CommandContext& context, const std::vector<std::string>& paths,
                     const std::vector<MountEntry>& mounts) {
  for (const std::string& path : paths) {
    std::vector<MountEntry> above = mounts;
    std::erase_if(above, [&, absolute = absolute_text(path)](const MountEntry& mount) {
      return !lies_within(absolute, mount.mount_point);
    });
    Mounts asked = ask(context, above);
    asked.dead.clear();  // which are cleared, or say themselves what they are
    QCACHE_TRY(refuse_unusable_mount(path, asked));
  }
  return {};
}

}  // namespace

Status refuse_silent_mounts(CommandContext& context, const std::vector<std::string>& paths) {
  return refuse_silent(context, paths, qcache_mounts(context));
}

Status refuse_below_silent_mounts(CommandContext& context, const std::vector<std::string>& paths) {
  const std::vector<MountEntry> mounts = qcache_mounts(context);
  std::vector<std::string> below = paths;
  std::erase_if(below, [&](const std::string& path) {
    return std::ranges::find(mounts, absolute_text(path), &MountEntry::mount_point) != mounts.end();
  });
  return refuse_silent(context, below, mounts);
}

std::optional<MountPath> locate_in_mounts(Env& env, const std::string& path, const std::vector<RunningMount>& mounts) {
  const auto real = env.real_path(path);
  const std::string absolute = real ? *real : absolute_text(path);
  const RunningMount* best = nullptr;
  for (const RunningMount& mount : mounts) {
    if (lies_within(absolute, mount.mount_point) &&
        (best == nullptr || mount.mount_point.size() > best->mount_point.size())) {
      best = &mount;
    }
  }
  if (best == nullptr) {
    return std::nullopt;
  }
  return MountPath{*best, split_path(std::string_view(absolute).substr(best->mount_point.size()))};
}

std::vector<std::string> split_path(std::string_view path) {
  std::vector<std::string> names;
  while (!path.empty()) {
    const size_t end = std::min(path.find('/'), path.size());
    if (end > 0) {
      names.emplace_back(path.substr(0, end));
    }
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return names;
}

}  // namespace qcache

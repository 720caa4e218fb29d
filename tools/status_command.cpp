#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <ostream>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <fmt/ostream.h>

#include "core/base/units.h"
#include "core/model/text.h"
#include "fs/passthrough.h"
#include "tools/cache_choice.h"
#include "tools/cache_entries.h"
#include "tools/exit_code.h"
#include "tools/human_text.h"
#include "tools/process_table.h"
#include "tools/surroundings.h"

namespace qcache {
namespace {

struct StatusWords {
  std::string mount_point;
  bool json = false;
};

/// A file that somebody makes.
struct Making {
  std::string path;
  double progress = 0;
  std::vector<Holder> makers;   ///< who writes it
  std::vector<Holder> readers;  ///< who has it open in a mount
};

/// A cache directory that is in use, or would be.
struct CacheStatus {
  std::string directory;
  std::string problem;  ///< why it cannot be looked into; then all else is empty
  size_t files = 0;
  uint64_t disk_bytes = 0;
  uint64_t free_bytes = 0;
  std::vector<Making> making;
};

std::vector<Holder> holding(const std::vector<Holder>& all, const std::string& path) {
  std::vector<Holder> out;
  std::copy_if(all.begin(), all.end(), std::back_inserter(out), [&](const Holder& holder) {
    return std::binary_search(holder.paths.begin(), holder.paths.end(), path);
  });
  return out;
}

CacheStatus look_at_cache(Env& env, const std::string& directory, const std::vector<RunningMount>& mounts) {
  CacheStatus out;
  out.directory = directory;
  const auto store = open_cache(env, directory);
  const auto entries = store ? (*store)->entries() : fail(store.error());
  if (!entries) {
    const bool is_own = std::any_of(mounts.begin(), mounts.end(), [](const RunningMount& mount) { return mount.own; });
    out.problem = entries.error().kind == ErrorKind::kNotFound ? "not made yet, which the first mount does"
                  : mounts.empty() || is_own                   ? entries.error().message
                                                               : "of who has mounted it, who alone may look into it";
    return out;
  }
  const auto space = env.space(directory);
  out.free_bytes = space ? space->available_bytes : 0;
  std::vector<std::string> folders = {(*store)->directory().filling_directory()};
  for (const RunningMount& mount : mounts) {
    folders.push_back(mount.mount_point);
  }
  const std::vector<Holder> holders = find_holders(folders);
  for (const CacheEntry& entry : *entries) {
    ++out.files;
    out.disk_bytes += entry.disk_bytes;
    if (entry.sealed || entry.complete || !entry.in_use) {
      continue;
    }
    Making making{label_of(entry), entry.progress, {}, {}};
    making.makers = holding(holders, (*store)->directory().filling_path(entry.record.file));
    for (const RunningMount& mount : mounts) {
      const auto readers = holding(holders, mount.mount_point + '/' + entry.record.virtual_path);
      making.readers.insert(making.readers.end(), readers.begin(), readers.end());
    }
    out.making.push_back(std::move(making));
  }
  return out;
}

// `word`: as a mount's status has it.
std::string passthrough_text(std::string_view word) {
  static constexpr std::array kTexts = {
      std::pair(PassthroughState::kWorks, "works: the kernel reads complete files by itself"),
      std::pair(PassthroughState::kUntried, "not tried yet: no complete file was opened"),
      std::pair(PassthroughState::kOff, "off (--no-passthrough)"),
      std::pair(PassthroughState::kNotPermitted, "no: only for mounts of root (CAP_SYS_ADMIN)"),
      std::pair(PassthroughState::kRefused, "no: the kernel refuses the cache's filesystem (overlayfs?)"),
      std::pair(PassthroughState::kUnsupported, "no: the kernel (Linux 6.9 has it) or the build has none")};
  const auto* const known =
      std::find_if(kTexts.begin(), kTexts.end(), [&](const auto& one) { return to_string(one.first) == word; });
  return known == kTexts.end() ? "not known" : known->second;
}

void print_line(std::ostream& out, std::string_view label, const std::string& text) {
  constexpr size_t kColumns = 80;
  constexpr size_t kIndent = 15;
  fmt::print(out, "  {:<13}{}\n", label, filled(printable(text), kColumns - kIndent, kIndent));
}

Json status_of(const RunningMount& mount) {
  return Json::parse(mount.status, nullptr, false);
}

std::string text_in(const Json& status, const char* key) {
  const auto value = status.find(key);
  return value != status.end() && value->is_string() ? value->get<std::string>() : "";
}

void print_mount(std::ostream& out, const RunningMount& mount) {
  const Json status = status_of(mount);
  out << printable(mount.mount_point) << '\n';
  std::string models;
  for (const Json& folder : status.value("models", Json::array())) {
    models += (models.empty() ? "" : ", ") + (folder.is_string() ? folder.get<std::string>() : "");
  }
  print_line(out, "models", models);
  print_line(out, "cache", mount.cache_directory);
  print_line(out, "daemon",
             fmt::format("pid {}, qcache {}, since {}", status.value("pid", Json(0)).dump(), text_in(status, "version"),
                         text_in(status, "started")));
  print_line(out, "passthrough", passthrough_text(text_in(status, "passthrough_state")));
}

void print_cache(std::ostream& out, const CacheStatus& cache) {
  fmt::print(out, "cache {}\n", printable(cache.directory));
  if (!cache.problem.empty()) {
    print_line(out, "state", cache.problem);
    return;
  }
  print_line(out, "holds",
             fmt::format("{}, {}; {} free", count_of(cache.files, "file"), format_size(cache.disk_bytes),
                         format_size(cache.free_bytes)));
  for (const Making& making : cache.making) {
    const std::string readers = names_of(making.readers);
    const std::string makers = names_of(making.makers);
    print_line(out, "being made",
               fmt::format("{} {}{}{}", making.path, format_percent(making.progress),
                           makers.empty() ? "" : ", by " + makers, readers.empty() ? "" : ", for " + readers));
  }
}

Json to_json(const std::vector<Holder>& holders) {
  Json out = Json::array();
  for (const Holder& holder : holders) {
    out.push_back(Json{{"pid", holder.pid}, {"program", holder.program}});
  }
  return out;
}

Json to_json(const CacheStatus& cache) {
  Json making = Json::array();
  for (const Making& file : cache.making) {
    making.push_back(Json{{"path", file.path},
                          {"progress", file.progress},
                          {"makers", to_json(file.makers)},
                          {"readers", to_json(file.readers)}});
  }
  return Json{{"cache_dir", cache.directory},   {"problem", cache.problem.empty() ? Json() : Json(cache.problem)},
              {"files", cache.files},           {"disk_bytes", cache.disk_bytes},
              {"free_bytes", cache.free_bytes}, {"making", std::move(making)}};
}

Json to_json(const Mounts& mounts) {
  Json out = Json::array();
  for (const RunningMount& mount : mounts.running) {
    out.push_back(Json{{"mount_point", mount.mount_point}, {"state", "running"}, {"status", status_of(mount)}});
  }
  const auto add = [&](const std::vector<std::string>& places, const char* state) {
    for (const std::string& place : places) {
      out.push_back(Json{{"mount_point", place}, {"state", state}, {"status", Json()}});
    }
  };
  add(mounts.silent, "silent");
  add(mounts.dead, "dead");
  add(mounts.closed, "closed");
  return out;
}

// Of one mount only, where one is named.
Result<Mounts> chosen_mounts(Mounts mounts, const std::string& mount_point) {
  if (mount_point.empty()) {
    return mounts;
  }
  // Compared as text first: whoever looks into a mount that does not answer waits for it.
  const std::string path = absolute_text(mount_point);
  for (auto* const places : {&mounts.silent, &mounts.dead, &mounts.closed}) {
    std::erase_if(*places, [&](const std::string& place) { return place != path; });
  }
  const bool is_unusable = !mounts.silent.empty() || !mounts.dead.empty() || !mounts.closed.empty();
  std::erase_if(mounts.running, [&](const RunningMount& mount) {
    return mount.mount_point != path && (is_unusable || !is_same_folder(mount.mount_point, mount_point));
  });
  if (mounts.running.empty() && mounts.silent.empty() && mounts.dead.empty() && mounts.closed.empty()) {
    return fail(ErrorKind::kNotFound, fmt::format("there is no qcache mount on {}", in_quotes(mount_point)));
  }
  return mounts;
}

// Those that mounts use, each once; without a mount the one that commands would use.
std::vector<std::string> caches_of(CommandContext& context, const Mounts& mounts) {
  std::vector<std::string> out;
  for (const RunningMount& mount : one_of_each_cache(mounts.running)) {
    out.push_back(mount.cache_directory);
  }
  if (out.empty()) {
    if (const auto chosen = choose_cache_directory(context, "", mounts)) {
      out.push_back(*chosen);
    }
  }
  return out;
}

void print_unusable(std::ostream& out, const std::string& place, const std::string& why) {
  out << printable(place) << '\n';
  print_line(out, "state", why);
}

Result<ExitCode> status(CommandContext& context, const StatusWords& words) {
  QCACHE_TRY_ASSIGN(const Mounts mounts, chosen_mounts(find_mounts(context), words.mount_point));
  std::vector<CacheStatus> caches;
  for (const std::string& directory : caches_of(context, mounts)) {
    std::vector<RunningMount> users = mounts.running;
    std::erase_if(users, [&](const RunningMount& mount) { return mount.cache_directory != directory; });
    caches.push_back(look_at_cache(context.env, directory, users));
  }
  const ExitCode exit = mounts.dead.empty() && mounts.silent.empty() ? ExitCode::kOk : ExitCode::kMountFailed;
  if (words.json) {
    Json of_caches = Json::array();
    for (const CacheStatus& cache : caches) {
      of_caches.push_back(to_json(cache));
    }
    context.out << json_text(Json{{"mounts", to_json(mounts)}, {"caches", std::move(of_caches)}});
    return exit;
  }
  for (const RunningMount& mount : mounts.running) {
    print_mount(context.out, mount);
  }
  for (const std::string& place : mounts.dead) {
    print_unusable(context.out, place, fmt::format("dead: its daemon has ended; 'qcache unmount {}' clears it", place));
  }
  for (const std::string& place : mounts.silent) {
    print_unusable(context.out, place, "does not answer: is its daemon stopped?");
  }
  for (const std::string& place : mounts.closed) {
    print_unusable(context.out, place, "another user's, mounted without --allow-other");
  }
  if (mounts.running.empty() && mounts.dead.empty() && mounts.silent.empty() && mounts.closed.empty()) {
    context.out << "No qcache mount is running: 'qcache mount MODELS... MOUNTPOINT' makes one\n";
  }
  for (const CacheStatus& cache : caches) {
    print_cache(context.out, cache);
  }
  return exit;
}

}  // namespace

void add_status_command(CLI::App& app, CommandContext& context, ExitCode& exit) {
  CLI::App* command = app.add_subcommand("status", "Tell which mounts there are, their caches, and what is being made");
  auto words = std::make_shared<StatusWords>();
  command->add_option("MOUNTPOINT", words->mount_point, "Only this mount (default: all)")->check(not_empty());
  add_json_flag(*command, words->json);
  command->footer(
      "Ends with exit code 6 where a mount is dead or does not answer. Who makes and reads a file is told as far as "
      "you may look into their processes.\n\nExample:\n  qcache status");
  command->callback(subcommand(context, exit, [&context, words] { return status(context, *words); }));
}

}  // namespace qcache

#include <memory>
#include <ostream>

#include <fmt/format.h>
#include <fmt/ostream.h>

#include "core/base/units.h"
#include "core/model/text.h"
#include "tools/cache_choice.h"
#include "tools/cache_entries.h"
#include "tools/command.h"
#include "tools/human_text.h"
#include "tools/named_files.h"

namespace qcache {
namespace {

struct FileWords {
  NameWords names;
  std::string cache_dir;
  bool dry_run = false;
  bool json = false;
};

void add_name_options(CLI::App& command, FileWords& words, const std::string& model_help) {
  command.add_option("model", words.names.model, model_help)->required();
  command.add_option("dtype", words.names.dtype, "Only this dtype of the model");
  command.add_option("rank", words.names.rank, "Only this rank");
  add_cache_dir_option(command, words.cache_dir);
  add_json_flag(command, words.json);
}

// The cached files that the words name, with the store that holds them.
struct Matched {
  std::shared_ptr<Store> store;
  std::vector<CacheEntry> entries;  // at least one
};

Result<Matched> match(CommandContext& context, const FileWords& words, const NamedFiles& names,
                      const std::vector<RunningMount>& mounts) {
  const std::string implied = words.cache_dir.empty() ? names.cache_directory() : words.cache_dir;
  Matched out;
  QCACHE_TRY_ASSIGN(out.store, open_cache(context.env, choose_cache_directory(implied, mounts)));
  QCACHE_TRY_ASSIGN(out.entries, out.store->entries());
  const FilePattern pattern = names.pattern();
  std::erase_if(out.entries, [&](const CacheEntry& entry) { return !pattern.matches(entry); });
  if (out.entries.empty()) {
    return fail(ErrorKind::kNotFound,
                fmt::format("nothing of {} is cached in {}", in_quotes(names.text), out.store->directory().path()));
  }
  return out;
}

// --- rm

struct Dropped {
  std::string path;
  uint64_t bytes = 0;
  bool in_use = false;
};

Result<ExitCode> print_dropped(CommandContext& context, const FileWords& words, const std::string& directory,
                               const std::vector<Dropped>& dropped) {
  uint64_t bytes = 0;
  Json files = Json::array();
  for (const Dropped& file : dropped) {
    bytes += file.bytes;
    files.push_back(Json{{"path", file.path}, {"disk_bytes", file.bytes}, {"in_use", file.in_use}});
  }
  if (words.json) {
    context.out << json_text(
        {{"cache_dir", directory}, {"dry_run", words.dry_run}, {"dropped", files}, {"dropped_bytes", bytes}});
    return ExitCode::kOk;
  }
  const std::string_view drop = words.dry_run ? "Would drop" : "Dropped";
  for (const Dropped& file : dropped) {
    fmt::print(context.out, "{} {} ({}){}\n", drop, printable(file.path), format_size(file.bytes),
               file.in_use ? "; its readers keep their bytes, and the space, until they close it" : "");
  }
  fmt::print(context.out, "{} {}, {}, in {}\n", drop, count_of(dropped.size(), "file"), format_size(bytes),
             printable(directory));
  return ExitCode::kOk;
}

// The files of a mount at and below a place in it.
Result<std::vector<MountPath>> files_at(Env& env, const MountPath& place) {
  QCACHE_TRY_ASSIGN(const FileStat stat, env.stat(place.full_path()));
  if (!stat.is_directory()) {
    return std::vector<MountPath>{place};
  }
  std::vector<MountPath> out;
  QCACHE_TRY_ASSIGN(const auto names, env.list(place.full_path()));
  for (const std::string& name : names) {
    MountPath inner = place;
    inner.names.push_back(name);
    QCACHE_TRY_ASSIGN(const auto below, files_at(env, inner));
    out.insert(out.end(), below.begin(), below.end());
  }
  return out;
}

Result<ExitCode> remove_in_mount(CommandContext& context, const FileWords& words, const MountPath& place) {
  if (place.names.empty() || place.names[0].starts_with('.')) {
    return fail(ErrorKind::kInvalidArgument,
                fmt::format("{} is not a model of the mount: name one", in_quotes(place.full_path())));
  }
  QCACHE_TRY_ASSIGN(const std::vector<MountPath> files, files_at(context.env, place));
  std::vector<Dropped> dropped;
  for (const MountPath& file : files) {
    QCACHE_TRY_ASSIGN(const FileStat stat, context.env.stat(file.full_path()));
    if (stat.allocated_bytes == 0) {
      continue;  // listed, but nothing of it is cached
    }
    if (!words.dry_run) {
      QCACHE_TRY(context.env.remove(file.full_path()));
    }
    dropped.push_back({fmt::format("{}", fmt::join(file.names, "/")), stat.allocated_bytes, false});
  }
  if (dropped.empty()) {
    return fail(ErrorKind::kNotFound, fmt::format("nothing of {} is cached", in_quotes(place.full_path())));
  }
  return print_dropped(context, words, place.mount.cache_directory, dropped);
}

Result<ExitCode> remove(CommandContext& context, const FileWords& words) {
  const std::vector<RunningMount> mounts = running_mounts(context.env, context.mount_table);
  QCACHE_TRY_ASSIGN(const NamedFiles names, resolve_names(context.env, words.names, mounts));
  if (const auto* place = std::get_if<MountPath>(&names.what)) {
    return remove_in_mount(context, words, *place);
  }
  QCACHE_TRY_ASSIGN(const Matched matched, match(context, words, names, mounts));
  std::vector<Dropped> dropped;
  for (const CacheEntry& entry : matched.entries) {
    Dropped file{label_of(entry), entry.disk_bytes, entry.in_use};
    if (!words.dry_run) {
      QCACHE_TRY_ASSIGN(file.bytes, matched.store->drop(entry.record.file, "removed by a user"));
    }
    dropped.push_back(std::move(file));
  }
  return print_dropped(context, words, matched.store->directory().path(), dropped);
}

void add_remove(CLI::App& app, CommandContext& context, ExitCode& exit) {
  CLI::App* command = app.add_subcommand("rm", "Drop the cached files of a model, or one of them");
  auto words = std::make_shared<FileWords>();
  add_name_options(*command, *words, "A model's name or folder, or the path of a file in a mount or in the cache");
  command->add_flag("--dry-run", words->dry_run, "Only say what would be dropped");
  command->footer(
      "Pinned files and files in use go too; who has one open keeps its bytes. What is dropped is made again when it "
      "is next read.\n\nExample:\n  qcache rm Qwen2.5-0.5B nf4");
  command->callback(subcommand(context, exit, [&context, words] { return remove(context, *words); }));
}

// --- pin, unpin

Result<ExitCode> set_pinned(CommandContext& context, const FileWords& words, bool pinned) {
  const std::vector<RunningMount> mounts = running_mounts(context.env, context.mount_table);
  QCACHE_TRY_ASSIGN(const NamedFiles names, resolve_names(context.env, words.names, mounts));
  QCACHE_TRY_ASSIGN(Matched matched, match(context, words, names, mounts));
  std::erase_if(matched.entries, [](const CacheEntry& entry) { return !entry.sealed; });
  if (matched.entries.empty()) {
    return fail(ErrorKind::kNotFound, fmt::format("{} is not complete yet, and only complete files are pinned: "
                                                  "'qcache warm' completes it",
                                                  in_quotes(names.text)));
  }
  Json paths = Json::array();
  for (const CacheEntry& entry : matched.entries) {
    QCACHE_TRY(matched.store->catalog().set_pinned(entry.record.file, pinned));
    paths.push_back(entry.record.virtual_path);
    if (!words.json) {
      fmt::print(context.out, "{} {}\n", pinned ? "Pinned" : "Unpinned", label_of(entry));
    }
  }
  if (words.json) {
    context.out << json_text(
        {{"cache_dir", matched.store->directory().path()}, {"pinned", pinned}, {"paths", std::move(paths)}});
  }
  return ExitCode::kOk;
}

void add_pin(CLI::App& app, CommandContext& context, ExitCode& exit, bool pinned) {
  CLI::App* command = pinned ? app.add_subcommand("pin", "Keep complete cached files whatever their age and size")
                             : app.add_subcommand("unpin", "Let pinned cached files be dropped by age and size again");
  auto words = std::make_shared<FileWords>();
  add_name_options(*command, *words, "A model's name or folder, or the path of a file in a mount or in the cache");
  command->footer(fmt::format("Example:\n  qcache {} Qwen2.5-0.5B int8", pinned ? "pin" : "unpin"));
  command->callback(
      subcommand(context, exit, [&context, words, pinned] { return set_pinned(context, *words, pinned); }));
}

}  // namespace

void add_file_commands(CLI::App& app, CommandContext& context, ExitCode& exit) {
  add_remove(app, context, exit);
  add_pin(app, context, exit, true);
  add_pin(app, context, exit, false);
}

}  // namespace qcache

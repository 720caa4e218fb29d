#include <algorithm>
#include <filesystem>
#include <iterator>
#include <memory>
#include <optional>
#include <ostream>

#include <fmt/format.h>
#include <fmt/ostream.h>

#include "core/base/units.h"
#include "core/engine/artifact_name.h"
#include "core/engine/engine.h"
#include "core/model/text.h"
#include "tools/cache_choice.h"
#include "tools/cache_entries.h"
#include "tools/command.h"
#include "tools/human_text.h"
#include "tools/mount_attributes.h"
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
  command.add_option("dtype", words.names.dtype, "Only this dtype of the model")->check(not_empty());
  command.add_option("rank", words.names.rank, "Only this rank or file: 16, 0.bin, 0/model.safetensors")
      ->check(not_empty());
  add_cache_dir_option(command, words.cache_dir);
  add_json_flag(command, words.json);
}

// The files that `ls` lists by this very word, or that lie there, or were made of the model in that folder. What is
// cached can be named thus whatever has become of its model.
std::vector<CacheEntry> listed_as(const std::string& word, const std::vector<CacheEntry>& entries,
                                  const CacheDirectory& directory) {
  std::error_code ignored;
  const std::string path = std::filesystem::weakly_canonical(word, ignored).string();
  std::vector<CacheEntry> out;
  std::copy_if(entries.begin(), entries.end(), std::back_inserter(out), [&](const CacheEntry& entry) {
    const Record& record = entry.record;
    const std::string place = entry.sealed ? directory.sealed_path(record.file) : directory.filling_path(record.file);
    return word == label_of(entry) || word == record.virtual_path || word == record.file || path == place ||
           path == record.model_path;
  });
  return out;
}

// The cached files that the words name, with the store that holds them.
struct Matched {
  std::shared_ptr<Store> store;
  std::vector<CacheEntry> entries;  // at least one
};

// `names`: what the words were resolved to, or why they could not be.
Result<Matched> match(CommandContext& context, const FileWords& words, const Result<NamedFiles>& names,
                      const Mounts& mounts) {
  const std::string implied = words.cache_dir.empty() && names ? names->cache_directory() : words.cache_dir;
  QCACHE_TRY_ASSIGN(const std::string directory, choose_cache_directory(implied, mounts));
  auto store = open_cache(context.env, directory);
  if (!store) {
    return fail(names ? store.error() : names.error());
  }
  Matched out;
  out.store = std::move(*store);
  QCACHE_TRY_ASSIGN(const std::vector<CacheEntry> all, out.store->entries());
  if (names) {
    const FilePattern pattern = names->pattern();
    std::copy_if(all.begin(), all.end(), std::back_inserter(out.entries),
                 [&](const CacheEntry& entry) { return pattern.matches(entry); });
  }
  if (out.entries.empty() && words.names.dtype.empty() && words.names.rank.empty()) {
    out.entries = listed_as(words.names.model, all, out.store->directory());
  }
  if (!out.entries.empty()) {
    return out;
  }
  return names ? fail(ErrorKind::kNotFound, fmt::format("nothing of {} is cached in {}", in_quotes(names->text),
                                                        out.store->directory().path()))
               : fail(names.error());
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

// What of a place the mount shows; nothing where it does not show it (any more).
Result<std::vector<Dropped>> remove_in_mount(CommandContext& context, const FileWords& words, const MountPath& place) {
  std::vector<Dropped> dropped;
  if (!context.env.stat(place.full_path())) {
    return dropped;
  }
  QCACHE_TRY_ASSIGN(std::vector<MountPath> files, files_at(context.env, place));
  std::erase_if(files, shows_weights_of_another_rank);  // the mount leaves those alone
  for (const MountPath& file : files) {
    const std::string state = attribute_or_empty(file.full_path(), "state");
    if (state.empty() || state == to_string(ArtifactState::kAbsent)) {
      continue;  // listed, but nothing of it is cached
    }
    QCACHE_TRY_ASSIGN(const FileStat stat, context.env.stat(file.full_path()));
    if (!words.dry_run) {
      QCACHE_TRY(context.env.remove(file.full_path()));
    }
    dropped.push_back({fmt::format("{}", fmt::join(file.names, "/")), stat.allocated_bytes, false});
  }
  return dropped;
}

Result<ExitCode> remove(CommandContext& context, const FileWords& words) {
  const Mounts mounts = find_mounts(context);
  const Result<NamedFiles> names = resolve_cached_names(context.env, words.names, mounts);
  if (!names && names.error().kind == ErrorKind::kBusy) {
    return fail(names.error());  // what lies in a silent mount is not looked at by any other way
  }
  const auto* place = names ? std::get_if<MountPath>(&names->what) : nullptr;
  if (place != nullptr && (place->names.empty() || place->names[0].starts_with('.'))) {
    return fail(ErrorKind::kInvalidArgument,
                fmt::format("{} is not a model of the mount: name one", in_quotes(place->full_path())));
  }
  Result<Matched> matched = match(context, words, names, mounts);
  std::vector<Dropped> dropped;
  // The daemon drops what it shows, and stops making it. What it does not show is left for below; but where the cache
  // directory is not ours to open there is no more to be done.
  if (place != nullptr && !(words.dry_run && matched)) {
    QCACHE_TRY_ASSIGN(dropped, remove_in_mount(context, words, *place));
    matched = match(context, words, names, mounts);
  }
  if (!matched && dropped.empty()) {
    return fail(matched.error());
  }
  for (const CacheEntry& entry : matched ? matched->entries : std::vector<CacheEntry>()) {
    Dropped file{label_of(entry), entry.disk_bytes, entry.in_use};
    if (!words.dry_run) {
      QCACHE_TRY_ASSIGN(file.bytes, matched->store->drop(entry.record.file, "removed by a user"));
    }
    dropped.push_back(std::move(file));
  }
  return print_dropped(context, words, matched ? matched->store->directory().path() : place->mount.cache_directory,
                       dropped);
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

// Whether the file is what its model makes now. So it is where there is no model any more: programs save such ones.
Result<bool> is_current(Env& env, const Record& record) {
  const std::string name = std::filesystem::path(record.model_path).filename().string();
  const auto model = read_source_model(env, record.model_path, name);
  if (!model && model.error().kind != ErrorKind::kNotFound) {
    return fail(model.error());
  }
  return model ? is_made_of(record, *model) : true;
}

// Leaves what may be pinned: complete files of the models as they are now. An error where that is nothing.
Status keep_current(Env& env, std::vector<CacheEntry>& entries, const std::string& words) {
  std::erase_if(entries, [](const CacheEntry& entry) { return !entry.sealed; });
  if (entries.empty()) {
    return fail(ErrorKind::kNotFound, fmt::format("{} is not complete yet, and only complete files are pinned: "
                                                  "'qcache warm' completes it",
                                                  in_quotes(words)));
  }
  std::vector<CacheEntry> current;
  std::optional<Error> problem;
  for (CacheEntry& entry : entries) {
    const auto is = is_current(env, entry.record);
    if (is && *is) {
      current.push_back(std::move(entry));
    } else if (!is) {
      problem = is.error();
    }
  }
  if (current.empty()) {
    return problem ? fail(*problem)
                   : fail(ErrorKind::kNotFound, fmt::format("what is cached of {} was made of an earlier state of its "
                                                            "model, which is not pinned: 'qcache warm' makes it anew",
                                                            in_quotes(words)));
  }
  entries = std::move(current);
  return {};
}

Result<ExitCode> set_pinned(CommandContext& context, const FileWords& words, bool pinned) {
  const Mounts mounts = find_mounts(context);
  const Result<NamedFiles> names = resolve_cached_names(context.env, words.names, mounts);
  if (!names && names.error().kind == ErrorKind::kBusy) {
    return fail(names.error());
  }
  QCACHE_TRY_ASSIGN(Matched matched, match(context, words, names, mounts));
  if (pinned) {
    QCACHE_TRY(keep_current(context.env, matched.entries, names ? names->text : words.names.model));
  } else {
    // Files of all states, and those that were complete and are being looked through.
    std::erase_if(matched.entries, [](const CacheEntry& entry) { return entry.record.created_ns == 0; });
    if (matched.entries.empty()) {
      return fail(ErrorKind::kNotFound, fmt::format("{} is not complete, and so is not pinned",
                                                    in_quotes(names ? names->text : words.names.model)));
    }
  }
  Json paths = Json::array();
  for (const CacheEntry& entry : matched.entries) {
    QCACHE_TRY(matched.store->set_pinned(entry.record.file, entry.record.recipe, pinned));
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

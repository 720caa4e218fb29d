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
#include "tools/cache_entries.h"
#include "tools/command.h"
#include "tools/confirm.h"
#include "tools/human_text.h"
#include "tools/matched_files.h"
#include "tools/mount_attributes.h"
#include "tools/surroundings.h"

namespace qcache {
namespace {

struct FileWords {
  NameWords names;
  std::string cache_dir;
  bool dry_run = false;
  bool yes = false;
  bool json = false;
};

void add_words(CLI::App& command, FileWords& words) {
  add_name_options(
      command, words.names,
      "A model: its name in a mount, its id in the hub (org/name), or its folder; or a file, by its path in "
      "a mount or in the cache, or as 'qcache ls' prints it")
      ->required();
  add_cache_dir_option(command, words.cache_dir);
  add_json_flag(command, words.json);
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
  if (dropped.empty()) {
    fmt::print(context.out, "Nothing to drop in {}\n", printable(directory));
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
Result<std::vector<Dropped>> remove_in_mount(CommandContext& context, const MountPath& place, bool dry_run) {
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
    if (!dry_run) {
      QCACHE_TRY(context.env.remove(file.full_path()));
    }
    dropped.push_back({fmt::format("{}", fmt::join(file.names, "/")), stat.allocated_bytes, false});
  }
  return dropped;
}

// A mere rank means also the files of it that stand beside its folder.
std::vector<MountPath> places_meant(const NamedFiles& names, const MountPath& place) {
  std::vector<MountPath> places = {place};
  const auto rank = names.rank_alone ? parse_rank(place.names.back()) : std::nullopt;
  for (const Container* const container : all_containers()) {
    if (rank && !container->stands_in_folder()) {
      places.push_back(place);
      places.back().names.back() = container->path_of(*rank, "");
    }
  }
  return places;
}

Result<std::vector<Dropped>> remove_in_mount(CommandContext& context, const std::vector<MountPath>& places,
                                             bool dry_run) {
  std::vector<Dropped> dropped;
  for (const MountPath& place : places) {
    QCACHE_TRY_ASSIGN(const std::vector<Dropped> more, remove_in_mount(context, place, dry_run));
    dropped.insert(dropped.end(), more.begin(), more.end());
  }
  return dropped;
}

// How much the disk gets back, as far as that is known before.
Result<uint64_t> bytes_to_drop(CommandContext& context, const Result<MatchedFiles>& matched,
                               const std::vector<MountPath>& places) {
  uint64_t bytes = 0;
  if (matched) {
    for (const CacheEntry& entry : matched->entries) {
      bytes += entry.disk_bytes;
    }
    return bytes;
  }
  QCACHE_TRY_ASSIGN(const std::vector<Dropped> shown, remove_in_mount(context, places, true));
  for (const Dropped& file : shown) {
    bytes += file.bytes;
  }
  return bytes;
}

Result<ExitCode> remove(CommandContext& context, const FileWords& words) {
  const Surroundings around(context, words.cache_dir);
  QCACHE_TRY_ASSIGN(const Result<NamedFiles> names, resolve_cached(around, words.names));
  const auto* place = names ? std::get_if<MountPath>(&names->what) : nullptr;
  if (place != nullptr && (place->names.empty() || place->names[0].starts_with('.'))) {
    return fail(ErrorKind::kInvalidArgument,
                fmt::format("{} is not a model of the mount: name one", in_quotes(place->full_path())));
  }
  const std::vector<MountPath> places = place != nullptr ? places_meant(*names, *place) : std::vector<MountPath>();
  Result<MatchedFiles> matched = match(around, words.names, names);
  if (!words.dry_run && !words.yes) {
    QCACHE_TRY_ASSIGN(const uint64_t bytes, bytes_to_drop(context, matched, places));
    if (!confirm(context,
                 fmt::format("Drop {} of {}", format_size(bytes), printable(names ? names->text : words.names.model)),
                 bytes)) {
      return ExitCode::kFailure;
    }
  }
  std::vector<Dropped> dropped;
  // The daemon drops what it shows, and stops making it. What it does not show is left for below; but where the cache
  // directory is not ours to open there is no more to be done.
  if (place != nullptr && !(words.dry_run && matched)) {
    QCACHE_TRY_ASSIGN(dropped, remove_in_mount(context, places, words.dry_run));
    matched = match(around, words.names, names);
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
  add_words(*command, *words);
  command->add_flag("--dry-run", words->dry_run, "Only say what would be dropped");
  command->add_flag("-y,--yes", words->yes, "Drop more than 10G without a question on the terminal");
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
  const Surroundings around(context, words.cache_dir);
  QCACHE_TRY_ASSIGN(const Result<NamedFiles> names, resolve_cached(around, words.names));
  QCACHE_TRY_ASSIGN(MatchedFiles matched, match(around, words.names, names));
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
  add_words(*command, *words);
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

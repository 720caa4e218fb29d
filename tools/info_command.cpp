#include <memory>
#include <ostream>

#include <fmt/format.h>
#include <fmt/ostream.h>

#include "core/base/units.h"
#include "core/engine/quality_json.h"
#include "core/model/text.h"
#include "tools/cache_choice.h"
#include "tools/cache_entries.h"
#include "tools/human_text.h"
#include "tools/model_report.h"
#include "tools/mount_attributes.h"
#include "tools/surroundings.h"

namespace qcache {
namespace {

struct InfoWords {
  std::string path;
  std::string cache_dir;
  bool json = false;
};

// What a line of text says for a key of the JSON document; empty where it says nothing.
std::string text_of_value(const std::string& key, const Json& value) {
  if (value.is_null() || key == "path") {
    return {};
  }
  if (key == "progress") {
    return format_percent(value.get<double>());
  }
  if (key.ends_with("_bytes")) {
    return fmt::format("{} ({} bytes)", format_size(value.get<uint64_t>()), value.get<uint64_t>());
  }
  if (value.is_boolean()) {
    return value.get<bool>() ? "yes" : "no";
  }
  return value.is_string() ? value.get<std::string>() : value.dump();
}

void print_line(std::ostream& out, std::string_view label, std::string_view text) {
  fmt::print(out, "  {:<14}{}\n", label, printable(text));
}

/// A quality_summary(): the median, and the weights that lost most.
void print_quality(std::ostream& out, const Json& summary) {
  const auto db = [](const Json& value) {
    return value.is_number() ? fmt::format("{:.2f} dB", value.get<double>()) : std::string("exact");
  };
  print_line(out, "sqnr",
             fmt::format("{} (median of {} quantized weights)", db(summary.value("median_db", Json())),
                         summary.value("weights", Json()).dump()));
  const Json worst = summary.value("worst_db", Json::object());
  for (const auto& [module, value] : worst.items()) {
    print_line(out, "", fmt::format("{} {}", db(value), module));
  }
}

void print_file(std::ostream& out, const std::string& title, const Json& document) {
  out << printable(title) << '\n';
  for (const auto& [key, value] : document.items()) {
    if (key == "sqnr" && value.is_object()) {
      print_quality(out, value);
      continue;
    }
    const std::string text = text_of_value(key, value);
    const std::string label = key == "size_bytes" ? "size" : key == "disk_bytes" ? "on disk" : key;
    if (!text.empty()) {
      print_line(out, label, text);
    }
  }
}

// `root` is the folder that the model's links may lead into.
Result<ExitCode> print_model(const Surroundings& around, const InfoWords& words, const std::string& root,
                             const std::string& path, const std::string& name, const ProgressLookup& lookup) {
  const auto reported = report_model(around.context.env, SourceFolders(around.context.env, {root}), path, name, lookup);
  if (!reported) {
    return fail(of_model(reported.error()));
  }
  const ModelReport& report = *reported;
  around.context.out << (words.json ? json_text(to_json(report)) : text_of(report));
  if (!report.servable()) {
    return fail(ErrorKind::kInvalidModel,
                fmt::format("the model {} cannot be served in any dtype", in_quotes(report.model->name)));
  }
  return ExitCode::kOk;
}

Result<ExitCode> info_of_folder(const Surroundings& around, const InfoWords& words, const FolderPath& folder) {
  if (folder.name.empty()) {
    return fail(no_weights(folder));
  }
  ProgressLookup lookup = progress_in_cache({});
  // Without a cache directory nothing is cached; where it cannot be read nobody knows.
  if (const auto store = open_cache(around.context.env, around.cache_directory)) {
    QCACHE_TRY_ASSIGN(const auto entries, (*store)->entries());
    lookup = progress_in_cache(entries);
  } else if (store.error().kind != ErrorKind::kNotFound) {
    lookup = progress_unknown();
  }
  return print_model(around, words, folder.root, folder.path, folder.name, lookup);
}

Result<ExitCode> info_of_mounted_file(const Surroundings& around, const InfoWords& words, const MountPath& place) {
  const std::string path = place.full_path();
  const auto stat = around.context.env.stat(path);
  if (!stat && stat.error().kind != ErrorKind::kNotFound) {
    return fail(stat.error());
  }
  if (!stat) {
    return fail(ErrorKind::kNotFound, fmt::format("there is no {}: see 'qcache info {}'", in_quotes(path),
                                                  place.mount.mount_point + '/' + place.names[0]));
  }
  Json document{{"path", path}, {"size_bytes", stat->size_bytes}, {"disk_bytes", stat->allocated_bytes}};
  for (const char* name :
       {"state", "progress", "sha256", "source", "backing", "created", "accessed", "hits", "pinned", "error", "sqnr"}) {
    QCACHE_TRY_ASSIGN(const auto value, get_attribute(path, name));
    document[name] = value ? Json(*value) : Json();
  }
  for (const char* name : {"progress", "hits", "sqnr"}) {
    Json& value = document[name];
    value = value.is_string() ? Json::parse(value.get<std::string>(), nullptr, false) : Json();
    const bool usable = name == std::string_view("sqnr") ? value.is_object() : value.is_number();
    value = usable ? value : Json();
  }
  document["pinned"] = document["pinned"] == "1";
  if (words.json) {
    around.context.out << json_text(document);
  } else {
    print_file(around.context.out, path, document);
  }
  return ExitCode::kOk;
}

Result<ExitCode> info_of_mount_path(const Surroundings& around, const InfoWords& words, MountPath place) {
  Env& env = around.context.env;
  if (place.names.empty()) {
    QCACHE_TRY_ASSIGN(const std::string status, read_text(env, place.full_path() + "/.qcache/status"));
    around.context.out << status;  // JSON that people can read
    return ExitCode::kOk;
  }
  if (place.names[0].starts_with('.')) {
    return fail(ErrorKind::kInvalidArgument, fmt::format("{} tells about the mount and is no model: read it as it is",
                                                         in_quotes(place.full_path())));
  }
  if (place.names.size() == 1) {
    const std::string source = attribute_or_empty(place.full_path(), "source");
    if (source.empty()) {
      return fail(unknown_model(place.names[0]));
    }
    if (const std::string error = attribute_or_empty(place.full_path(), "error"); !error.empty()) {
      return fail(ErrorKind::kInvalidModel, error);
    }
    // The mount serves it, so its links lead nowhere else than the mount's folders.
    return print_model(around, words, "/", source, place.names[0], progress_in_mount(place));
  }
  return info_of_mounted_file(around, words, files_meant(env, std::move(place)).back());
}

Result<ExitCode> info_of_cached_files(const Surroundings& around, const InfoWords& words, const NamedFiles& names) {
  const std::string implied = names.cache_directory();
  const auto store = open_cache(around.context.env, implied.empty() ? around.cache_directory : implied);
  std::vector<CacheEntry> entries;
  if (store) {
    QCACHE_TRY_ASSIGN(entries, (*store)->entries());
    const FilePattern pattern = names.pattern();
    std::erase_if(entries, [&](const CacheEntry& entry) { return !pattern.matches(entry); });
  } else if (store.error().kind != ErrorKind::kNotFound) {
    return fail(store.error());
  }
  if (entries.empty()) {
    return fail(std::holds_alternative<ModelName>(names.what)
                    ? unknown_model(names.text)
                    : Error{ErrorKind::kNotFound, 0, fmt::format("{} has no record", in_quotes(names.text))});
  }
  Json files = Json::array();
  for (const CacheEntry& entry : entries) {
    files.push_back(to_json(entry, (*store)->directory()));
    QCACHE_TRY_ASSIGN(const auto tensors, (*store)->catalog().quality(entry.record));
    files.back()["sqnr"] =
        entry.sealed && !tensors.empty() ? Json::parse(quality_summary(tensors), nullptr, false) : Json();
    if (!words.json) {
      print_file(around.context.out, label_of(entry), files.back());
    }
  }
  if (words.json) {
    around.context.out << json_text(files.size() == 1 ? files[0] : Json{{"files", files}});
  }
  return ExitCode::kOk;
}

Result<ExitCode> info(CommandContext& context, const InfoWords& words) {
  QCACHE_TRY_ASSIGN(const Surroundings around, Surroundings::look_around(context, words.cache_dir));
  QCACHE_TRY_ASSIGN(const NamedFiles names, around.resolve({words.path, "", ""}));
  if (const auto* place = std::get_if<MountPath>(&names.what)) {
    return info_of_mount_path(around, words, *place);
  }
  if (const auto* folder = std::get_if<FolderPath>(&names.what)) {
    return info_of_folder(around, words, *folder);
  }
  return info_of_cached_files(around, words, names);
}

}  // namespace

void add_info_command(CLI::App& app, CommandContext& context, ExitCode& exit) {
  CLI::App* command = app.add_subcommand("info", "Tell what is known of a model or a file");
  auto words = std::make_shared<InfoWords>();
  command
      ->add_option("path", words->path,
                   "A model's name in a mount or its folder, or the path of a file in a mount or in the cache")
      ->required();
  add_cache_dir_option(*command, words->cache_dir);
  add_json_flag(*command, words->json);
  command->footer(
      "Ends with exit code 4 where the model cannot be served, and says why.\n\nExample:\n"
      "  qcache info ~/models/Qwen2.5-0.5B");
  command->callback(subcommand(context, exit, [&context, words] { return info(context, *words); }));
}

}  // namespace qcache

#include <algorithm>
#include <iterator>
#include <memory>
#include <optional>
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
  NameWords names;
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
                             const std::string& path, const std::string& name, const std::optional<std::string>& dtype,
                             const FileStates& states) {
  auto reported = report_model(around.env(), SourceFolders(around.env(), {root}), path, name, states);
  if (!reported) {
    return fail(of_model(reported.error()));
  }
  ModelReport& report = *reported;
  if (dtype) {
    std::erase_if(report.dtypes, [&](const DtypeReport& one) { return one.dtype != *dtype; });
    if (report.dtypes.empty()) {
      return fail(ErrorKind::kNotFound,
                  fmt::format("there is no dtype {}: 'qcache info {}' lists them", in_quotes(*dtype), printable(name)));
    }
  }
  around.context().out << (words.json ? json_text(to_json(report)) : text_of(report));
  if (!report.servable()) {
    return fail(ErrorKind::kInvalidModel,
                dtype ? fmt::format("the model {} cannot be served as {}", in_quotes(report.model->name), *dtype)
                      : fmt::format("the model {} cannot be served in any dtype", in_quotes(report.model->name)));
  }
  return ExitCode::kOk;
}

Result<ExitCode> info_of_folder(const Surroundings& around, const InfoWords& words, const NamedFiles& names,
                                const FolderPath& folder) {
  if (folder.name.empty()) {
    return fail(no_weights(folder));
  }
  std::unique_ptr<FileStates> states = states_in_cache({});
  QCACHE_TRY_ASSIGN(const std::string directory, around.cache_directory_of(names));
  // Without a cache directory nothing is cached; where it cannot be read nobody knows.
  if (const auto store = open_cache(around.env(), directory)) {
    QCACHE_TRY_ASSIGN(auto entries, (*store)->entries());
    states = states_in_cache(std::move(entries));
  } else if (store.error().kind != ErrorKind::kNotFound) {
    states = states_unknown();
  }
  return print_model(around, words, folder.root, folder.path, folder.name, names.dtype, *states);
}

Result<Json> describe_mounted_file(const Surroundings& around, const MountPath& place) {
  const std::string path = place.full_path();
  const auto stat = around.env().stat(path);
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
  return document;
}

// The files of a dtype, or of a rank's folder; a file as it is.
Result<std::vector<MountPath>> files_of_place(const Surroundings& around, const MountPath& place) {
  constexpr size_t kDtypeDepth = 2;
  std::vector<MountPath> files = files_meant(around.env(), place);
  if (place.names.size() == kDtypeDepth) {
    const auto names = around.env().list(place.full_path());
    for (const std::string& name : names.value_or(std::vector<std::string>())) {
      MountPath inner = place;
      inner.names.push_back(name);
      std::vector<MountPath> more = name == "0" ? std::vector<MountPath>() : files_meant(around.env(), inner);
      std::erase_if(more, shows_weights_of_another_rank);
      std::move(more.begin(), more.end(), std::back_inserter(files));
    }
    std::sort(files.begin(), files.end(), [](const MountPath& a, const MountPath& b) { return a.names < b.names; });
    files.erase(std::unique(files.begin(), files.end(),
                            [](const MountPath& a, const MountPath& b) { return a.names == b.names; }),
                files.end());
  }
  return files;
}

Result<ExitCode> info_of_mounted_files(const Surroundings& around, const InfoWords& words, const MountPath& place) {
  QCACHE_TRY_ASSIGN(const std::vector<MountPath> places, files_of_place(around, place));
  Json files = Json::array();
  for (const MountPath& file : places) {
    auto described = describe_mounted_file(around, file);
    if (!described) {
      return fail(of_model(described.error()));
    }
    Json& document = *described;
    if (!words.json) {
      print_file(around.context().out, file.full_path(), document);
    }
    files.push_back(std::move(document));
  }
  if (words.json) {
    around.context().out << json_text(files.size() == 1 ? files[0] : Json{{"files", files}});
  }
  return ExitCode::kOk;
}

Result<ExitCode> info_of_mount_path(const Surroundings& around, const InfoWords& words, const MountPath& place) {
  if (place.names.empty()) {
    around.context().out << place.mount.status;  // JSON that people can read
    return ExitCode::kOk;
  }
  if (place.names[0].starts_with('.')) {
    return fail(ErrorKind::kInvalidArgument, fmt::format("{} tells about the mount and is no model: read it as it is",
                                                         in_quotes(place.full_path())));
  }
  const MountPath model{place.mount, {place.names[0]}};
  const std::string source = attribute_or_empty(model.full_path(), "source");
  if (source.empty()) {
    return fail(around.unknown_model(place.names[0], &place.mount));
  }
  if (const std::string error = attribute_or_empty(model.full_path(), "error"); !error.empty()) {
    return fail(ErrorKind::kInvalidModel, error);
  }
  const bool shows_it = around.env().stat(place.full_path()).has_value();
  if (place.names.size() > 2 || (place.names.size() == 2 && shows_it)) {
    return info_of_mounted_files(around, words, place);
  }
  const auto* scheme = place.names.size() == 2 ? find_scheme(place.names[1]) : nullptr;
  const std::optional<std::string> dtype = place.names.size() < 2 ? std::nullopt
                                           : scheme == nullptr    ? std::optional(place.names[1])
                                                                  : std::optional(std::string(scheme->name()));
  // The mount serves it, so its links lead nowhere else than the mount's folders.
  return print_model(around, words, "/", source, place.names[0], dtype, *states_in_mount(around.env(), model));
}

Result<ExitCode> info_of_cached_files(const Surroundings& around, const InfoWords& words, const NamedFiles& names) {
  const auto directory = around.cache_directory_of(names);
  if (!directory) {
    const auto* const named = std::get_if<ModelName>(&names.what);
    return fail(named != nullptr ? around.unknown_model(named->name) : directory.error());
  }
  const auto store = open_cache(around.env(), *directory);
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
                    ? around.unknown_model(std::get<ModelName>(names.what).name)
                    : Error{ErrorKind::kNotFound, 0, fmt::format("{} has no record", in_quotes(names.text))});
  }
  Json files = Json::array();
  for (const CacheEntry& entry : entries) {
    files.push_back(to_json(entry, (*store)->directory()));
    QCACHE_TRY_ASSIGN(const auto tensors, (*store)->catalog().quality(entry.record.file, entry.record.contents()));
    files.back()["sqnr"] =
        entry.sealed && !tensors.empty() ? Json::parse(quality_summary(tensors), nullptr, false) : Json();
    if (!words.json) {
      print_file(around.context().out, label_of(entry), files.back());
    }
  }
  if (words.json) {
    around.context().out << json_text(files.size() == 1 ? files[0] : Json{{"files", files}});
  }
  return ExitCode::kOk;
}

Result<ExitCode> info(CommandContext& context, const InfoWords& words) {
  const Surroundings around(context, words.cache_dir);
  QCACHE_TRY_ASSIGN(const NamedFiles names, around.resolve(words.names));
  if (const auto* place = std::get_if<MountPath>(&names.what)) {
    return info_of_mount_path(around, words, *place);
  }
  if (const auto* folder = std::get_if<FolderPath>(&names.what)) {
    return names.file.empty() ? info_of_folder(around, words, names, *folder)
                              : info_of_cached_files(around, words, names);
  }
  return info_of_cached_files(around, words, names);
}

}  // namespace

void add_info_command(CLI::App& app, CommandContext& context, ExitCode& exit) {
  CLI::App* command = app.add_subcommand("info", "Tell what is known of a model or a file");
  auto words = std::make_shared<InfoWords>();
  command
      ->add_option(
          "MODEL", words->names.model,
          "A model: its name in a mount, its id in the hub (org/name), or its folder; or the path of a file in "
          "a mount or in the cache, or a mount")
      ->required();
  command->add_option("DTYPE", words->names.dtype, "Only this dtype of the model")->check(not_empty());
  command->add_option("FILE", words->names.file, "Only this rank or file: 16, 0.bin, 0/model.safetensors")
      ->check(not_empty());
  add_cache_dir_option(*command, words->cache_dir);
  add_json_flag(*command, words->json);
  command->footer(
      "Ends with exit code 4 where the model cannot be served, and says why.\n\nExample:\n"
      "  qcache info ~/models/Qwen2.5-0.5B");
  command->callback(subcommand(context, exit, [&context, words] { return info(context, *words); }));
}

}  // namespace qcache

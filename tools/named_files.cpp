#include "tools/named_files.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <iterator>
#include <utility>

#include <fmt/format.h>

#include "core/engine/artifact_name.h"
#include "core/model/model_finder.h"
#include "core/model/pipeline.h"
#include "core/model/text.h"
#include "core/quant/scheme.h"
#include "tools/cache_choice.h"
#include "tools/mount_attributes.h"

namespace qcache {
namespace {

std::string canonical_dtype(const std::string& word) {
  const Scheme* scheme = find_scheme(word);
  return scheme != nullptr ? std::string(scheme->name()) : word;
}

constexpr std::string_view kHubPrefix = "models--";
constexpr size_t kDtypeDepth = 2;  // of <model>/<dtype>

std::string joined(const std::vector<std::string>& names, size_t from) {
  return names.size() > from
             ? fmt::format("{}", fmt::join(names.begin() + static_cast<ptrdiff_t>(from), names.end(), "/"))
             : "";
}

// What a rank's folder may show of cached files, below the dtype. The weights come before the adapter.
std::vector<std::pair<const Container*, std::string>> files_of_folder(uint32_t rank) {
  std::vector<std::pair<const Container*, std::string>> out;
  for (const Container* const container : all_containers()) {
    if (!container->stands_in_folder()) {
      continue;
    }
    out.emplace_back(container, container->path_of(rank, ""));
    for (const std::string_view component : kPipelineComponents) {
      out.emplace_back(container, container->path_of(rank, component));
    }
  }
  // All components have one adapter's name.
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

std::string text_of(const NameWords& words) {
  std::string text = words.model;
  for (const std::string& word : {words.dtype, words.file}) {
    text += word.empty() ? "" : ' ' + word;
  }
  return text;
}

Error no_such_path(Env& env, const std::string& path) {
  const std::string name = in_quotes(path);
  return Error{ErrorKind::kNotFound, 0,
               env.stat(path) ? name + " is neither a model, nor a file of a mount, nor a cached one"
                              : "there is no " + name + ": name a model, a file of a mount or a folder with weights"};
}

// Folders of the system, which nobody means to have looked through for models.
bool is_no_place_for_models(const std::string& real) {
  static constexpr std::array kSystem = {"/",     "/bin", "/boot", "/dev", "/etc", "/lib",
                                         "/proc", "/run", "/sbin", "/sys", "/usr", "/var"};
  return std::find(kSystem.begin(), kSystem.end(), real) != kSystem.end() || real.starts_with("/proc/") ||
         real.starts_with("/sys/") || real.starts_with("/dev/");
}

// The folder of a cached file is the cache directory, or "filling" in it.
CachedFilePath cached_file_at(const std::filesystem::path& path) {
  std::filesystem::path folder = path.parent_path();
  if (folder.filename() == "filling") {
    folder = folder.parent_path();
  }
  return CachedFilePath{folder.string(), path.filename().string()};
}

// `names`: a dtype, and the path of a file below it.
Status add_names(NamedFiles& out, const std::vector<std::string>& names) {
  out.file = joined(names, 1);
  if (auto* place = std::get_if<MountPath>(&out.what)) {
    if (place->names.empty() && !names.empty()) {
      return fail(ErrorKind::kInvalidArgument,
                  fmt::format("{0} is a mount and no model: name one, such as {0}/MODEL", place->mount.mount_point));
    }
    place->names.insert(place->names.end(), names.begin(), names.end());
    return {};
  }
  if (!names.empty()) {
    out.dtype = canonical_dtype(names[0]);
  }
  if (out.file.empty()) {
    return {};
  }
  const auto file = parse_container_path(out.file);
  out.rank = file ? file->container->rank_behind(file->rank) : parse_rank(out.file);
  if (file) {
    out.container = file->container;
  } else if (!out.rank) {
    return fail(ErrorKind::kInvalidArgument,
                fmt::format("{} is neither a rank, such as 16, nor a file, such as 0.bin or 0/model.safetensors",
                            in_quotes(out.file)));
  }
  return {};
}

}  // namespace

bool FilePattern::matches(const CacheEntry& entry) const {
  const Record& record = entry.record;
  const auto path = parse_artifact_path(record.virtual_path);
  if (!path) {
    return file == record.file;  // damaged: only by its own name
  }
  // A file that is being made does not tell its model's folder, but its name follows from that.
  const auto is_of = [&](const std::string& folder) {
    return base_file_name(record.file) == base_file_name_of(*path, folder);
  };
  if (model && *model != path->model && std::none_of(shown.begin(), shown.end(), is_of)) {
    return false;
  }
  if (model_path && !is_of(*model_path)) {
    return false;
  }
  const bool of_container =
      containers.empty() || std::find(containers.begin(), containers.end(), path->container) != containers.end();
  return (!dtype || *dtype == path->dtype) && (!rank || rank == path->rank) && of_container &&
         (!file || *file == record.file);
}

FilePattern NamedFiles::pattern() const {
  FilePattern out;
  out.dtype = dtype;
  out.rank = rank;
  if (container != nullptr) {
    out.containers = {container};
  }
  out.shown = shown;
  if (const auto* named = std::get_if<ModelName>(&what)) {
    out.model = named->name;
  } else if (const auto* cached = std::get_if<CachedFilePath>(&what)) {
    out.file = cached->file;
  } else if (const auto* folder = std::get_if<FolderPath>(&what)) {
    out.model_path = folder->path;
  } else {
    const std::vector<std::string>& names = std::get<MountPath>(what).names;
    if (!names.empty()) {
      out.model = names[0];
    }
    if (names.size() > 1) {
      out.dtype = canonical_dtype(names[1]);
    }
    if (names.size() > kDtypeDepth) {
      const std::string below = joined(names, kDtypeDepth);
      if (const auto known = parse_container_path(below)) {
        out.containers = {known->container};
        out.rank = known->container->rank_behind(known->rank);
      } else if (const auto of_folder = parse_rank(below)) {
        // A folder that a path leads to: what is its own.
        out.rank = of_folder;
        if (!rank_alone) {
          std::ranges::copy_if(all_containers(), std::back_inserter(out.containers),
                               [&](const Container* one) { return one->is_own_of_folder(*of_folder); });
        }
      } else {
        out.file = "";  // nothing else is cached: a folder's other files, and names that the mount does not have
      }
    }
  }
  return out;
}

std::string NamedFiles::cache_directory() const {
  if (const auto* place = std::get_if<MountPath>(&what)) {
    return place->mount.cache_directory;
  }
  const auto* cached = std::get_if<CachedFilePath>(&what);
  return cached != nullptr ? cached->cache_directory : "";
}

Result<FolderPath> look_into_folder(Env& env, const std::string& folder) {
  QCACHE_TRY_ASSIGN(std::string real, env.real_path(folder));
  if (is_no_place_for_models(real)) {
    return fail(ErrorKind::kInvalidArgument,
                fmt::format("{} is no folder of models, and is not looked through: name a model", in_quotes(folder)));
  }
  FoundModels found = find_models(env, {real});
  if (found.models.size() > 1) {
    return fail(ErrorKind::kInvalidArgument,
                fmt::format("{} holds {} models: name the folder of one, such as {}", in_quotes(folder),
                            found.models.size(), in_quotes(found.models[0].path)));
  }
  if (found.models.empty()) {
    return FolderPath{real, real, ""};
  }
  return FolderPath{std::move(real), std::move(found.models[0].path), std::move(found.models[0].name)};
}

namespace {

// What is cached is found by its records, so that no folder is looked through; of a hub cache's entry the snapshot
// counts.
Result<FolderPath> folder_of_cached(Env& env, const std::string& folder) {
  QCACHE_TRY_ASSIGN(std::string real, env.real_path(folder));
  std::string name = std::filesystem::path(real).filename().string();
  if (name.starts_with(kHubPrefix)) {
    return look_into_folder(env, folder);
  }
  if (is_no_place_for_models(real)) {
    return fail(ErrorKind::kInvalidArgument, fmt::format("{} is no model: name one, or a cached file as 'qcache ls' "
                                                         "prints it",
                                                         in_quotes(folder)));
  }
  return FolderPath{real, real, std::move(name)};
}

// The folder of a model that is gone, as far as links in its path still lead somewhere.
FolderPath missing_folder(const std::string& word) {
  std::error_code ignored;
  const std::string path = std::filesystem::weakly_canonical(word, ignored).string();
  return FolderPath{path, path, ""};
}

std::vector<std::string> folders_shown(const NamedFiles& names, const std::vector<RunningMount>& mounts) {
  std::vector<std::string> paths;
  if (const auto* named = std::get_if<ModelName>(&names.what)) {
    for (const RunningMount& mount : mounts) {
      paths.push_back(mount.mount_point + '/' + named->name);
    }
  } else if (const auto* place = std::get_if<MountPath>(&names.what); place != nullptr && !place->names.empty()) {
    paths.push_back(place->mount.mount_point + '/' + place->names[0]);
  }
  std::vector<std::string> folders;
  for (const std::string& path : paths) {
    if (std::string folder = attribute_or_empty(path, "source"); !folder.empty()) {
      folders.push_back(std::move(folder));
    }
  }
  return folders;
}

bool is_shown(Env& env, const std::vector<RunningMount>& mounts, const std::string& model) {
  return !model.starts_with('.') && std::any_of(mounts.begin(), mounts.end(), [&](const RunningMount& mount) {
    return env.stat(mount.mount_point + '/' + model).has_value();
  });
}

// "models--org--name" is how a hub cache calls what a mount shows as "org--name".
std::string without_hub_prefix(const std::string& name) {
  return name.starts_with(kHubPrefix) ? name.substr(kHubPrefix.size()) : name;
}

// Of the parts of a word that is no path: the model, and what follows. "org/name" is a model of the hub where mounts
// show that, unless they show a model "org" too and "name" is a dtype; and where nothing else can be meant.
ModelName take_model(Env& env, const std::vector<RunningMount>& mounts, std::vector<std::string>& parts) {
  ModelName model{without_hub_prefix(parts[0])};
  size_t taken = 1;
  if (parts.size() > 1) {
    const std::string hub_name = parts[0] + "--" + parts[1];
    const bool names_dtype = find_scheme(parts[1]) != nullptr;
    const bool first_is_model = is_shown(env, mounts, model.name);
    const bool hub_is_model = is_shown(env, mounts, hub_name);
    if (first_is_model ? hub_is_model && !names_dtype : hub_is_model || !names_dtype) {
      model.name = hub_name;
      taken = 2;
    }
  }
  parts.erase(parts.begin(), parts.begin() + static_cast<ptrdiff_t>(taken));
  return model;
}

// Whether "folder/name" is rather a path in a folder that is there than a model's name.
bool leads_nowhere(Env& env, const std::vector<RunningMount>& mounts, const std::vector<std::string>& parts) {
  if (parts.size() < 2 || find_scheme(parts[1]) != nullptr || is_shown(env, mounts, parts[0]) ||
      is_shown(env, mounts, parts[0] + "--" + parts[1])) {
    return false;
  }
  const auto stat = env.stat(parts[0]);
  return stat && stat->is_directory();
}

Result<NamedFiles> resolve(Env& env, const NameWords& words, const Mounts& mounts, bool cached) {
  NamedFiles out;
  out.text = text_of(words);
  std::vector<std::string> more;
  for (const std::string& word : {words.dtype, words.file}) {
    const std::vector<std::string> parts = split_path(word);
    more.insert(more.end(), parts.begin(), parts.end());
  }
  out.rank_alone = parse_rank(words.file).has_value();
  const bool is_path = words.model.find('/') != std::string::npos;
  QCACHE_TRY(refuse_unusable_mount(words.model, mounts));
  const auto stat = env.stat(words.model);
  if (stat || is_path) {
    if (auto place = locate_in_mounts(env, words.model, mounts.running)) {
      out.what = std::move(*place);
      QCACHE_TRY(add_names(out, more));
      return out;
    }
  }
  const std::filesystem::path path(words.model);
  if (is_artifact_file_name(path.filename().string())) {
    if (is_path && !stat) {
      return fail(no_such_path(env, words.model));
    }
    std::error_code ignored;
    out.what = stat ? cached_file_at(std::filesystem::absolute(path, ignored).lexically_normal())
                    : CachedFilePath{"", words.model};
  } else if (is_path && stat && stat->is_directory()) {
    QCACHE_TRY_ASSIGN(out.what, cached ? folder_of_cached(env, words.model) : look_into_folder(env, words.model));
  } else if (words.model.starts_with('/') || words.model.starts_with("./") || words.model.starts_with("../")) {
    if (stat || !cached) {
      return fail(no_such_path(env, words.model));
    }
    out.what = missing_folder(words.model);
  } else {
    std::vector<std::string> parts = split_path(words.model);
    if (!cached && leads_nowhere(env, mounts.running, parts)) {
      return fail(no_such_path(env, words.model));
    }
    if (parts.empty()) {
      return fail(ErrorKind::kInvalidArgument, "a model's name must not be empty");
    }
    out.what = take_model(env, mounts.running, parts);
    more.insert(more.begin(), parts.begin(), parts.end());
  }
  QCACHE_TRY(add_names(out, more));
  return out;
}

}  // namespace

Result<NamedFiles> resolve_names(Env& env, const NameWords& words, const Mounts& mounts) {
  return resolve(env, words, mounts, false);
}

Result<NamedFiles> resolve_cached_names(Env& env, const NameWords& words, const Mounts& mounts) {
  QCACHE_TRY_ASSIGN(NamedFiles names, resolve(env, words, mounts, true));
  names.shown = folders_shown(names, mounts.running);
  return names;
}

bool shows_weights_of_another_rank(const MountPath& file) {
  const auto named = parse_container_path(joined(file.names, kDtypeDepth));
  return named && named->container->rank_behind(named->rank) != named->rank;
}

std::vector<MountPath> files_meant(Env& env, MountPath place) {
  std::vector<MountPath> out;
  const auto add_of_folder = [&](uint32_t rank, const Container* wanted) {
    for (const auto& [container, below] : files_of_folder(rank)) {
      MountPath file{place.mount, {place.names[0], place.names[1]}};
      const std::vector<std::string> names = split_path(below);
      file.names.insert(file.names.end(), names.begin(), names.end());
      if ((wanted == nullptr || container == wanted) && env.stat(file.full_path())) {
        out.push_back(std::move(file));
      }
    }
  };
  const std::string below = joined(place.names, kDtypeDepth);
  if (place.names.size() == kDtypeDepth) {
    add_of_folder(0, nullptr);
    place.names.push_back(container_checkpoint().path_of(0, ""));
  } else if (const auto rank = parse_rank(below)) {
    add_of_folder(*rank, nullptr);
  } else if (const auto named = parse_container_path(below);
             named && named->container->stands_in_folder() && !env.stat(place.full_path())) {
    add_of_folder(named->rank, named->container);
  }
  if (out.empty()) {
    out.push_back(std::move(place));
  }
  return out;
}

Result<std::optional<MountPath>> the_one_meant(std::vector<MountPath> places, const std::string& text) {
  if (std::any_of(places.begin(), places.end(), [](const MountPath& place) { return place.mount.own; })) {
    std::erase_if(places, [](const MountPath& place) { return !place.mount.own; });
  }
  if (places.empty()) {
    return std::optional<MountPath>();
  }
  const RunningMount& first = places[0].mount;
  const auto other = std::find_if(places.begin(), places.end(), [&](const MountPath& place) {
    return place.mount.cache_directory != first.cache_directory;
  });
  if (other != places.end()) {
    return fail(ErrorKind::kInvalidArgument,
                fmt::format("the model {} is in mounts with different cache directories, {} ({}) and {} ({}): name it "
                            "by its path in one, or say which with --cache-dir",
                            in_quotes(text), first.mount_point, first.cache_directory, other->mount.mount_point,
                            other->mount.cache_directory));
  }
  return std::optional(std::move(places[0]));
}

Result<std::optional<MountPath>> find_in_mounts(Env& env, const NamedFiles& names,
                                                const std::vector<RunningMount>& mounts,
                                                const std::string& cache_directory) {
  if (const auto* place = std::get_if<MountPath>(&names.what)) {
    return std::optional(*place);
  }
  const auto* named = std::get_if<ModelName>(&names.what);
  if (named == nullptr || named->name.starts_with('.')) {
    return std::optional<MountPath>();  // "." is in every mount, and no model
  }
  std::vector<MountPath> showing;
  for (const RunningMount& mount : mounts) {
    const bool counts = cache_directory.empty() || is_same_folder(mount.cache_directory, cache_directory);
    if (counts && env.stat(mount.mount_point + '/' + named->name)) {
      showing.push_back({mount, {named->name}});
    }
  }
  QCACHE_TRY_ASSIGN(std::optional<MountPath> found, the_one_meant(std::move(showing), named->name));
  if (found && names.dtype) {
    found->names.push_back(*names.dtype);
    const std::vector<std::string> below = split_path(names.file);
    found->names.insert(found->names.end(), below.begin(), below.end());
  }
  return found;
}

}  // namespace qcache

#include "tools/named_files.h"

#include <algorithm>
#include <filesystem>

#include <fmt/format.h>

#include "core/engine/artifact_name.h"
#include "core/layout/adapter_folder.h"
#include "core/model/model_finder.h"
#include "core/model/text.h"
#include "core/quant/scheme.h"
#include "tools/mount_attributes.h"

namespace qcache {
namespace {

std::string canonical_dtype(const std::string& word) {
  const Scheme* scheme = find_scheme(word);
  return scheme != nullptr ? std::string(scheme->name()) : word;
}

constexpr size_t kDtypeDepth = 2;  // of <model>/<dtype>
constexpr size_t kRankDepth = 3;
constexpr std::string_view kFolderWeights = "model.safetensors";
constexpr std::string_view kAdapter = "adapter_model.safetensors";
constexpr std::string_view kPipelineAdapter = "pytorch_lora_weights.safetensors";

// What a rank's folder may hold of cached files, below it. The weights come before the adapter.
std::vector<std::vector<std::string>> weights_of_folders() {
  const std::string lora(AdapterFolder::kName);
  const std::string component = "diffusion_pytorch_model.safetensors";
  return {{std::string(kFolderWeights)},
          {"transformer", component},
          {"unet", component},
          {lora, std::string(kAdapter)},
          {lora, std::string(kPipelineAdapter)}};
}

// Which file of a rank's folder is meant; without a name the one that is its own.
void choose_in_folder(std::string_view file, std::optional<uint32_t>& rank, std::optional<ArtifactKind>& kind) {
  const bool adapter = file.empty() ? rank.value_or(0) > 0 : file == kAdapter || file == kPipelineAdapter;
  kind = adapter ? ArtifactKind::kAdapter : ArtifactKind::kSafetensors;
  if (!adapter) {
    rank = 0;  // every rank's folder shows the weights of rank 0
  }
}

// "0" or "0.bin".
Result<uint32_t> rank_of_word(const std::string& word) {
  const auto rank = rank_of_file_name(word.ends_with(".bin") ? word : word + ".bin");
  if (!rank) {
    return fail(ErrorKind::kInvalidArgument,
                fmt::format("{} is not a rank: it is a number such as 0", in_quotes(word)));
  }
  return *rank;
}

std::string joined(const NameWords& words) {
  std::string text = words.model;
  for (const std::string& word : {words.dtype, words.rank}) {
    text += word.empty() ? "" : ' ' + word;
  }
  return text;
}

Error no_such_path(const std::string& path) {
  return Error{
      ErrorKind::kNotFound, 0,
      fmt::format("there is no {}: name a model, a file of a mount or a folder with weights", in_quotes(path))};
}

// The folder of a cached file is the cache directory, or "filling" in it.
CachedFilePath cached_file_at(const std::filesystem::path& path) {
  std::filesystem::path folder = path.parent_path();
  if (folder.filename() == "filling") {
    folder = folder.parent_path();
  }
  return CachedFilePath{folder.string(), path.filename().string()};
}

Status add_names(NamedFiles& out, const std::vector<std::string>& more) {
  if (auto* place = std::get_if<MountPath>(&out.what)) {
    place->names.insert(place->names.end(), more.begin(), more.end());
    return {};
  }
  if (more.size() > 2) {
    const std::vector<std::vector<std::string>> known = weights_of_folders();
    if (std::find(known.begin(), known.end(), std::vector<std::string>(more.begin() + 2, more.end())) == known.end()) {
      return fail(no_such_path(out.text));
    }
  }
  if (!more.empty()) {
    out.dtype = canonical_dtype(more[0]);
  }
  if (more.size() > 1) {
    QCACHE_TRY_ASSIGN(out.rank, rank_of_word(more[1]));
    if (more.size() > 2) {
      choose_in_folder(more.back(), out.rank, out.kind);
    } else if (more[1].ends_with(".bin")) {
      out.kind = ArtifactKind::kCheckpoint;
    }
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
  return (!dtype || *dtype == path->dtype) && (!rank || rank == path->rank) && (!kind || kind == path->kind) &&
         (!file || *file == record.file);
}

FilePattern NamedFiles::pattern() const {
  FilePattern out;
  out.dtype = dtype;
  out.rank = rank;
  out.kind = kind;
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
    if (names.size() > 2) {
      const auto rank_of_file = rank_of_file_name(names[2]);
      out.kind = ArtifactKind::kCheckpoint;
      out.rank = rank_of_file ? rank_of_file : parse_rank(names[2]);
      if (!rank_of_file) {
        choose_in_folder(names.size() > kRankDepth ? std::string_view(names.back()) : "", out.rank, out.kind);
      }
      if (names.size() > kRankDepth && !names.back().ends_with(".safetensors")) {
        out.file = "";  // a folder's other files are not cached
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

Result<NamedFiles> resolve(Env& env, const NameWords& words, const Mounts& mounts, bool folder_may_be_gone) {
  NamedFiles out;
  out.text = joined(words);
  std::vector<std::string> more;
  for (const std::string& word : {words.dtype, words.rank}) {
    const std::vector<std::string> parts = split_path(word);
    more.insert(more.end(), parts.begin(), parts.end());
  }
  const bool is_path = words.model.find('/') != std::string::npos;
  QCACHE_TRY(refuse_silent_mount(words.model, mounts));
  const auto stat = env.stat(words.model);
  if (stat || is_path) {
    if (auto place = locate_in_mounts(env, words.model, mounts.running)) {
      if (place->names.size() + more.size() == 3 && !more.empty() && !more.back().ends_with(".bin")) {
        more.back() += ".bin";
      }
      out.what = std::move(*place);
      QCACHE_TRY(add_names(out, more));
      return out;
    }
  }
  const std::filesystem::path path(words.model);
  if (is_artifact_file_name(path.filename().string())) {
    if (is_path && !stat) {
      return fail(no_such_path(words.model));
    }
    std::error_code ignored;
    out.what = stat ? cached_file_at(std::filesystem::absolute(path, ignored).lexically_normal())
                    : CachedFilePath{"", words.model};
  } else if (is_path && stat && stat->is_directory()) {
    QCACHE_TRY_ASSIGN(out.what, look_into_folder(env, words.model));
  } else if (words.model.starts_with('/') || words.model.starts_with("./") || words.model.starts_with("../")) {
    if (stat || !folder_may_be_gone) {
      return fail(no_such_path(words.model));
    }
    out.what = missing_folder(words.model);
  } else {
    std::vector<std::string> names = split_path(words.model);
    if (names.empty()) {
      return fail(ErrorKind::kInvalidArgument, "a model's name must not be empty");
    }
    out.what = ModelName{names[0]};
    more.insert(more.begin(), names.begin() + 1, names.end());
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

std::vector<std::string> names_below_model(const NamedFiles& names) {
  std::vector<std::string> out;
  if (names.dtype) {
    out.push_back(*names.dtype);
  }
  if (names.rank && names.kind == ArtifactKind::kSafetensors) {
    out.push_back(fmt::format("{}", *names.rank));
    out.emplace_back(kFolderWeights);
  } else if (names.rank && names.kind == ArtifactKind::kAdapter) {
    out.push_back(fmt::format("{}", *names.rank));
    out.emplace_back(AdapterFolder::kName);
    out.emplace_back(kAdapter);
  } else if (names.rank) {
    out.push_back(fmt::format("{}.bin", *names.rank));
  }
  return out;
}

bool shows_weights_of_another_rank(const MountPath& file) {
  if (file.names.size() <= kRankDepth) {
    return false;
  }
  const std::optional<uint32_t> folder = parse_rank(file.names[kRankDepth - 1]);
  std::optional<uint32_t> rank = folder;
  std::optional<ArtifactKind> kind;
  choose_in_folder(file.names.back(), rank, kind);
  return rank != folder;
}

std::vector<MountPath> files_meant(Env& env, MountPath place) {
  if (place.names.size() == kDtypeDepth) {
    place.names.emplace_back("0.bin");
  }
  std::vector<MountPath> out;
  if (place.names.size() == kRankDepth && !place.names.back().ends_with(".bin")) {
    for (const std::vector<std::string>& names : weights_of_folders()) {
      MountPath file = place;
      file.names.insert(file.names.end(), names.begin(), names.end());
      if (env.stat(file.full_path())) {
        out.push_back(std::move(file));
      }
    }
  }
  if (out.empty()) {
    out.push_back(std::move(place));
  }
  return out;
}

std::optional<MountPath> find_in_mounts(Env& env, const NamedFiles& names, const std::vector<RunningMount>& mounts) {
  if (const auto* place = std::get_if<MountPath>(&names.what)) {
    return *place;
  }
  const auto* named = std::get_if<ModelName>(&names.what);
  if (named == nullptr || named->name.starts_with('.')) {
    return std::nullopt;  // "." is in every mount, and no model
  }
  for (const RunningMount& mount : mounts) {
    if (!env.stat(mount.mount_point + '/' + named->name)) {
      continue;
    }
    MountPath place{mount, {named->name}};
    const std::vector<std::string> below = names_below_model(names);
    place.names.insert(place.names.end(), below.begin(), below.end());
    return place;
  }
  return std::nullopt;
}

}  // namespace qcache

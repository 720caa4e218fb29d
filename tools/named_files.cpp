#include "tools/named_files.h"

#include <filesystem>

#include <fmt/format.h>

#include "core/engine/artifact_name.h"
#include "core/model/model_finder.h"
#include "core/model/text.h"
#include "core/quant/scheme.h"

namespace qcache {
namespace {

std::string canonical_dtype(const std::string& word) {
  const Scheme* scheme = find_scheme(word);
  return scheme != nullptr ? std::string(scheme->name()) : word;
}

// "0" or "0.bin".
Result<uint32_t> parse_rank(const std::string& word) {
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
    if (place->names.size() > 3) {
      return fail(no_such_path(place->full_path()));
    }
    return {};
  }
  if (more.size() > 2) {
    return fail(no_such_path(out.text));
  }
  if (!more.empty()) {
    out.dtype = canonical_dtype(more[0]);
  }
  if (more.size() > 1) {
    QCACHE_TRY_ASSIGN(out.rank, parse_rank(more[1]));
  }
  return {};
}

}  // namespace

bool FilePattern::matches(const CacheEntry& entry) const {
  const Record& record = entry.record;
  const std::vector<std::string> names = split_path(record.virtual_path);
  if (names.size() != 3) {
    return file == record.file;  // damaged: only by its own name
  }
  const auto entry_rank = rank_of_file_name(names[2]);
  if (model && *model != names[0]) {
    return false;
  }
  // A file that is being made does not tell its model's folder, but its name follows from that.
  if (model_path && (!entry_rank || record.file != artifact_file_name(*model_path, names[1], *entry_rank))) {
    return false;
  }
  return (!dtype || *dtype == names[1]) && (!rank || rank == entry_rank) && (!file || *file == record.file);
}

FilePattern NamedFiles::pattern() const {
  FilePattern out;
  out.dtype = dtype;
  out.rank = rank;
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
      out.rank = rank_of_file_name(names[2]);
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

Result<NamedFiles> resolve_names(Env& env, const NameWords& words, const std::vector<RunningMount>& mounts) {
  NamedFiles out;
  out.text = joined(words);
  std::vector<std::string> more;
  for (const std::string& word : {words.dtype, words.rank}) {
    if (!word.empty()) {
      more.push_back(word);
    }
  }
  const bool is_path = words.model.find('/') != std::string::npos;
  const auto stat = env.stat(words.model);
  if (stat || is_path) {
    if (auto place = locate_in_mounts(env, words.model, mounts)) {
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
    return fail(no_such_path(words.model));
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

std::optional<MountPath> find_in_mounts(Env& env, const NamedFiles& names, const std::vector<RunningMount>& mounts) {
  if (const auto* place = std::get_if<MountPath>(&names.what)) {
    return *place;
  }
  const auto* named = std::get_if<ModelName>(&names.what);
  for (const RunningMount& mount : mounts) {
    if (named == nullptr || !env.stat(mount.mount_point + '/' + named->name)) {
      continue;
    }
    MountPath place{mount, {named->name}};
    if (names.dtype) {
      place.names.push_back(*names.dtype);
    }
    if (names.rank) {
      place.names.push_back(fmt::format("{}.bin", *names.rank));
    }
    return place;
  }
  return std::nullopt;
}

}  // namespace qcache

#include "tools/matched_files.h"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <set>
#include <string>

#include <fmt/format.h>

#include "core/engine/artifact_name.h"
#include "core/model/text.h"
#include "core/quant/scheme.h"
#include "tools/cache_choice.h"
#include "tools/cache_entries.h"
#include "tools/exit_code.h"
#include "tools/suggestion.h"

namespace qcache {
namespace {

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
    return word == record.virtual_path || word == record.file || path == place || path == record.model_path;
  });
  if (!out.empty()) {
    return out;
  }
  // A name with what `ls` cannot print is printed as others may be called: then it must be the only one.
  std::copy_if(entries.begin(), entries.end(), std::back_inserter(out),
               [&](const CacheEntry& entry) { return word == label_of(entry); });
  const bool is_one = std::all_of(out.begin(), out.end(), [&](const CacheEntry& entry) {
    return entry.record.virtual_path == out[0].record.virtual_path;
  });
  return is_one ? out : std::vector<CacheEntry>();
}

// What is cached of the one model below a folder that is no model itself. An error where there are several.
Result<std::vector<CacheEntry>> below_folder(const std::string& word, const std::string& folder,
                                             const std::vector<CacheEntry>& entries) {
  std::vector<CacheEntry> out;
  std::set<std::string> models;
  for (const CacheEntry& entry : entries) {
    if (!entry.record.model_path.empty() && lies_within(entry.record.model_path, folder)) {
      models.insert(entry.record.model_path);
      out.push_back(entry);
    }
  }
  if (models.size() > 1) {
    return fail(ErrorKind::kInvalidArgument,
                fmt::format("files of {} models in {} are cached: name the folder of one, such as {}", models.size(),
                            in_quotes(word), in_quotes(*models.begin())));
  }
  return out;
}

// That nothing is cached of what the words name; with what may have been meant.
Error nothing_cached(const NamedFiles& names, const std::vector<CacheEntry>& entries, const std::string& directory) {
  if (names.dtype && find_scheme(*names.dtype) == nullptr) {
    std::vector<std::string> dtypes;
    for (const Scheme* const scheme : all_schemes()) {
      dtypes.emplace_back(scheme->name());
    }
    return Error{ErrorKind::kNotFound, 0,
                 fmt::format("there is no dtype {}{}", in_quotes(*names.dtype), did_you_mean(*names.dtype, dtypes))};
  }
  std::vector<std::string> models;
  for (const CacheEntry& entry : entries) {
    const auto path = parse_artifact_path(entry.record.virtual_path);
    models.push_back(path ? path->model : "");
  }
  const auto* const named = std::get_if<ModelName>(&names.what);
  const bool is_known = named == nullptr || std::find(models.begin(), models.end(), named->name) != models.end();
  return Error{ErrorKind::kNotFound, 0,
               fmt::format("nothing of {} is cached in {}{}", in_quotes(names.text), directory,
                           is_known ? "" : did_you_mean(named->name, models))};
}

}  // namespace

Result<MatchedFiles> match(const Surroundings& around, const NameWords& words, const Result<NamedFiles>& names) {
  const auto directory = names ? around.cache_directory_of(*names) : around.cache_directory();
  if (!directory) {
    return fail(names ? directory.error() : names.error());
  }
  auto store = open_cache(around.env(), *directory);
  if (!store) {
    return fail(names ? store.error() : names.error());
  }
  MatchedFiles out;
  out.store = std::move(*store);
  QCACHE_TRY_ASSIGN(const std::vector<CacheEntry> all, out.store->entries());
  if (names) {
    const FilePattern pattern = names->pattern();
    std::copy_if(all.begin(), all.end(), std::back_inserter(out.entries),
                 [&](const CacheEntry& entry) { return pattern.matches(entry); });
  }
  if (out.entries.empty() && words.dtype.empty() && words.file.empty()) {
    out.entries = listed_as(words.model, all, out.store->directory());
    const auto* const folder = names ? std::get_if<FolderPath>(&names->what) : nullptr;
    if (out.entries.empty() && folder != nullptr) {
      QCACHE_TRY_ASSIGN(out.entries, below_folder(words.model, folder->path, all));
    }
  }
  if (!out.entries.empty()) {
    return out;
  }
  return fail(names ? nothing_cached(*names, all, out.store->directory().path()) : names.error());
}

Result<Result<NamedFiles>> resolve_cached(const Surroundings& around, const NameWords& words) {
  Result<NamedFiles> names = resolve_cached_names(around.env(), words, around.mounts());
  if (!names && (names.error().kind == ErrorKind::kBusy || is_dead_mount(names.error()))) {
    return fail(names.error());
  }
  return names;
}

Result<MatchedFiles> match(const Surroundings& around, const NameWords& words) {
  QCACHE_TRY_ASSIGN(const Result<NamedFiles> names, resolve_cached(around, words));
  return match(around, words, names);
}

}  // namespace qcache

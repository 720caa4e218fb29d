#include <fcntl.h>

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "core/store/file_lock.h"
#include "core/store/named_file.h"
#include "core/store/store.h"

namespace qcache {
namespace {

constexpr std::string_view kMapSuffix = ".map";

}  // namespace

// The names of which at least half a pair is there. What is no file is somebody else's.
Result<std::vector<std::string>> Store::filling_names() {
  QCACHE_TRY_ASSIGN(const auto all, env_.list(directory_.filling_directory()));
  std::set<std::string> names;
  for (const std::string& name : all) {
    std::string_view file = name;
    if (file.ends_with(kMapSuffix)) {
      file.remove_suffix(kMapSuffix.size());
    }
    if (!is_artifact_file_name(file)) {
      continue;
    }
    QCACHE_TRY_ASSIGN(const auto stat, stat_if_there(env_, directory_.filling_directory() + '/' + name));
    if (stat.has_value()) {
      names.emplace(file);
    }
  }
  return std::vector<std::string>(names.begin(), names.end());
}

// What the map of the pair says; nothing where there is none, or it is damaged.
Result<std::optional<FillingKey>> Store::filling_key(const std::string& file) {
  const auto fd = open_named(env_, directory_.map_path(file), O_RDONLY);
  if (!fd.has_value()) {
    return fd.error().kind == ErrorKind::kNotFound ? Result<std::optional<FillingKey>>(std::nullopt) : fail(fd.error());
  }
  auto key = TileMap::read_key(env_, fd->get());
  if (!key.has_value()) {
    return key.error().kind == ErrorKind::kCorrupt ? Result<std::optional<FillingKey>>(std::nullopt)
                                                   : fail(key.error());
  }
  return std::optional(std::move(*key));
}

// Nothing where the pair is not whole. Does not say whether it is in use.
Result<std::optional<CacheEntry>> Store::filling_entry(const std::string& file) {
  const std::string map_path = directory_.map_path(file);
  QCACHE_TRY_ASSIGN(const auto data, stat_if_there(env_, directory_.filling_path(file)));
  QCACHE_TRY_ASSIGN(const auto map, stat_if_there(env_, map_path));
  if (!data.has_value() || !map.has_value()) {
    return std::optional<CacheEntry>();
  }
  const auto fd = open_named(env_, map_path, O_RDONLY);
  if (!fd.has_value()) {
    if (fd.error().kind == ErrorKind::kNotFound) {
      return std::optional<CacheEntry>();
    }
    if (fd.error().kind == ErrorKind::kPermission) {
      // Another user's, who keeps nobody from all the others: it is known by its own name.
      CacheEntry entry;
      entry.record.file = file;
      entry.record.accessed_ns = map->mtime_ns;
      entry.disk_bytes = data->allocated_bytes + map->allocated_bytes;
      return std::optional(std::move(entry));
    }
    return fail(fd.error());
  }
  const auto summary = TileMap::summarize(env_, fd->get());
  if (!summary.has_value()) {
    if (summary.error().kind == ErrorKind::kCorrupt) {
      return std::optional<CacheEntry>();
    }
    return fail(summary.error());
  }
  CacheEntry entry;
  QCACHE_TRY_ASSIGN(const auto kept, read_kept(env_, fd->get()));
  if (kept.has_value()) {
    kept->restore(entry.record);
  }
  entry.record.file = file;
  entry.record.virtual_path = summary->key.virtual_path;
  entry.record.recipe = summary->key.recipe;
  entry.record.size_bytes = summary->key.size_bytes;
  entry.record.tile_count = summary->key.tile_count;
  entry.record.accessed_ns = std::max(entry.record.accessed_ns, map->mtime_ns);
  entry.disk_bytes = data->allocated_bytes + map->allocated_bytes;
  const uint32_t tiles = summary->key.tile_count;
  entry.complete = summary->complete;
  entry.progress = tiles == 0 ? 1.0 : static_cast<double>(summary->marked_count) / static_cast<double>(tiles);
  return std::optional(std::move(entry));
}

Result<double> Store::filling_progress(const std::string& file, const Sha256Digest& recipe) {
  QCACHE_TRY_ASSIGN(const auto entry, filling_entry(file));
  return entry.has_value() && entry->record.recipe == recipe ? entry->progress : 0.0;
}

Result<std::vector<CacheEntry>> Store::entries() {
  const auto is_later_state = [](const CacheEntry& later, const CacheEntry& entry) {
    return later.record.method == entry.record.method && later.record.recipe != entry.record.recipe &&
           later.record.created_ns > std::max(entry.record.accessed_ns, entry.record.created_ns);
  };
  std::vector<CacheEntry> all;
  QCACHE_TRY_ASSIGN(const auto records, catalog_->list());
  for (const Record& record : records) {
    const std::string path = directory_.sealed_path(record.file);
    QCACHE_TRY_ASSIGN(const auto stat, stat_if_there(env_, path));
    if (stat.has_value()) {
      QCACHE_TRY_ASSIGN(const auto unused, RemovalLock::try_acquire(env_, path));
      CacheEntry& entry = all.emplace_back();
      entry.record = record;
      entry.sealed = true;
      entry.in_use = !unused.has_value();
      entry.disk_bytes = stat->allocated_bytes;
    }
  }
  std::multimap<std::string, const CacheEntry*> by_base;
  for (const CacheEntry& entry : all) {
    by_base.emplace(base_file_name(entry.record.file), &entry);
  }
  for (CacheEntry& entry : all) {
    const auto [first, last] = by_base.equal_range(base_file_name(entry.record.file));
    entry.stale = entry.record.method != Sha256Digest{} &&
                  std::any_of(first, last, [&](const auto& other) { return is_later_state(*other.second, entry); });
  }
  QCACHE_TRY_ASSIGN(const auto names, filling_names());
  for (const std::string& name : names) {
    QCACHE_TRY_ASSIGN(auto entry, filling_entry(name));
    if (entry.has_value()) {
      QCACHE_TRY_ASSIGN(const auto unused, RemovalLock::try_acquire(env_, directory_.filling_path(name)));
      entry->in_use = !unused.has_value();
      all.push_back(std::move(*entry));
    }
  }
  std::stable_sort(all.begin(), all.end(), [](const CacheEntry& a, const CacheEntry& b) {
    return a.record.virtual_path < b.record.virtual_path;
  });
  return all;
}

Result<CacheTotals> Store::totals() {
  CacheTotals totals;
  QCACHE_TRY_ASSIGN(const auto records, catalog_->list());
  for (const Record& record : records) {
    QCACHE_TRY_ASSIGN(const auto stat, stat_if_there(env_, directory_.sealed_path(record.file)));
    if (stat.has_value()) {
      totals.sealed_files += 1;
      totals.disk_bytes += stat->allocated_bytes;
    }
  }
  QCACHE_TRY_ASSIGN(const auto names, filling_names());
  for (const std::string& name : names) {
    totals.filling_files += 1;
    for (const std::string& path : {directory_.map_path(name), directory_.filling_path(name)}) {
      QCACHE_TRY_ASSIGN(const auto stat, stat_if_there(env_, path));
      totals.disk_bytes += stat.has_value() ? stat->allocated_bytes : 0;
    }
  }
  return totals;
}

}  // namespace qcache

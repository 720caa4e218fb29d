#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <set>
#include <utility>

#include "core/store/file_lock.h"
#include "core/store/named_file.h"
#include "core/store/store.h"

namespace qcache {
namespace {

// Whether the record still speaks of the same sealed bytes.
bool same_file(const std::optional<Record>& now, const Record& seen) {
  return now.has_value() && now->backing == seen.backing && now->recipe == seen.recipe;
}

constexpr std::string_view kMapSuffix = ".map";

struct Leftover {
  CacheEntry entry;
  std::vector<std::string> paths;
};

}  // namespace

// The file first: a full disk may refuse to erase the record until the file's blocks are free, and whoever removes a
// file to make room must get it. A record that stays is found out later.
Result<uint64_t> Store::drop_sealed_locked(const std::string& file) {
  const std::string path = directory_.sealed_path(file);
  QCACHE_TRY_ASSIGN(const auto stat, stat_if_there(env_, path));
  QCACHE_TRY(remove_if_there(env_, path));
  QCACHE_TRY(remove_if_there(env_, directory_.kept_map_path(file)));
  env_.reached("dropped, still recorded");
  if (const Status erased = catalog_->erase(file); !erased.has_value()) {
    spdlog::warn("the record of {} stays until the next look: {}", path, erased.error().message);
  }
  return stat.has_value() ? stat->allocated_bytes : 0;
}

// The map first: a data file alone is worthless, while a map might be taken to belong to a later data file.
Result<uint64_t> Store::drop_filling_locked(const std::string& file) {
  uint64_t bytes = 0;
  for (const std::string& path : {directory_.map_path(file), directory_.filling_path(file)}) {
    QCACHE_TRY_ASSIGN(const auto stat, stat_if_there(env_, path));
    QCACHE_TRY(remove_if_there(env_, path));
    bytes += stat.has_value() ? stat->allocated_bytes : 0;
  }
  return bytes;
}

Result<uint64_t> Store::drop(const std::string& file, std::string_view reason) {
  if (!is_artifact_file_name(file)) {
    return fail(ErrorKind::kInvalidArgument, fmt::format("'{}' is not the name of a cached file", file));
  }
  std::vector<UniqueFd> held;  // closed after the directory is unlocked
  QCACHE_TRY_ASSIGN(const DirectoryLock lock, DirectoryLock::acquire(env_, directory_.lock_path()));
  return drop_locked(file, reason, held);
}

// By what lies there and not by the catalog, so that files without a record go too.
Result<uint64_t> Store::drop_all(const std::string& base, std::string_view reason) {
  std::vector<UniqueFd> held;
  return drop_all(base, reason, held);
}

Result<uint64_t> Store::drop_all(const std::string& base, std::string_view reason, std::vector<UniqueFd>& held) {
  if (!is_artifact_file_name(base)) {
    return fail(ErrorKind::kInvalidArgument, fmt::format("'{}' is not the name of a cached file", base));
  }
  QCACHE_TRY_ASSIGN(const DirectoryLock lock, DirectoryLock::acquire(env_, directory_.lock_path()));
  QCACHE_TRY_ASSIGN(std::vector<std::string> files, env_.list(directory_.path()));
  QCACHE_TRY_ASSIGN(const auto filling, filling_names());
  files.insert(files.end(), filling.begin(), filling.end());
  files.push_back(base);
  std::sort(files.begin(), files.end());
  files.erase(std::unique(files.begin(), files.end()), files.end());
  uint64_t bytes = 0;
  for (const std::string& file : files) {
    if (is_artifact_file_name(file) && base_file_name(file) == base) {
      QCACHE_TRY_ASSIGN(const uint64_t dropped, drop_locked(file, reason, held));
      bytes += dropped;
    }
  }
  return bytes;
}

Result<uint64_t> Store::drop_locked(const std::string& file, std::string_view reason, std::vector<UniqueFd>& held) {
  // With a descriptor left, removing the name does not free the blocks: that would be done with the directory locked.
  for (const std::string& path : {directory_.sealed_path(file), directory_.filling_path(file)}) {
    if (auto fd = open_named(env_, path, O_RDONLY)) {
      held.push_back(std::move(*fd));
    }
  }
  QCACHE_TRY_ASSIGN(const auto filling, filling_entry(file));
  // A catalog that cannot be read must not keep anybody from freeing space; it only gives the name for the log here.
  const auto record = catalog_->find(file).value_or(std::nullopt);
  QCACHE_TRY_ASSIGN(const uint64_t sealed_bytes, drop_sealed_locked(file));
  QCACHE_TRY_ASSIGN(const uint64_t filling_bytes, drop_filling_locked(file));
  if (record.has_value() || filling.has_value()) {
    spdlog::info("dropped {}: {}", record.has_value() ? record->virtual_path : filling->record.virtual_path, reason);
  }
  return sealed_bytes + filling_bytes;
}

Result<std::optional<uint64_t>> Store::drop_sealed(const Record& seen, std::string_view reason, WhenInUse when) {
  // Ends after the directory lock: closing what was removed frees its blocks, which takes long for a large file.
  std::optional<RemovalLock> unused;
  QCACHE_TRY_ASSIGN(const DirectoryLock lock, DirectoryLock::acquire(env_, directory_.lock_path()));
  QCACHE_TRY_ASSIGN(const auto now, catalog_->find(seen.file));
  if (!same_file(now, seen)) {
    return std::optional<uint64_t>();
  }
  if (when == WhenInUse::kKeep) {
    if (now->pinned || now->accessed_ns != seen.accessed_ns) {
      return std::optional<uint64_t>();
    }
    QCACHE_TRY_ASSIGN(auto held, RemovalLock::try_acquire(env_, directory_.sealed_path(seen.file)));
    if (!held.has_value()) {
      return std::optional<uint64_t>();
    }
    unused.emplace(std::move(*held));
  }
  QCACHE_TRY_ASSIGN(const uint64_t bytes, drop_sealed_locked(seen.file));
  spdlog::info("dropped {}: {}", seen.virtual_path, reason);
  return std::optional(bytes);
}

Result<std::optional<uint64_t>> Store::drop_filling(const std::string& file, std::string_view reason, WhenInUse when) {
  if (!is_artifact_file_name(file)) {
    return fail(ErrorKind::kInvalidArgument, fmt::format("'{}' is not the name of a cached file", file));
  }
  std::optional<RemovalLock> unused;  // as in drop_sealed()
  QCACHE_TRY_ASSIGN(const DirectoryLock lock, DirectoryLock::acquire(env_, directory_.lock_path()));
  QCACHE_TRY_ASSIGN(const auto entry, filling_entry(file));
  if (when == WhenInUse::kKeep) {
    QCACHE_TRY_ASSIGN(auto held, RemovalLock::try_acquire(env_, directory_.filling_path(file)));
    if (!held.has_value()) {
      return std::optional<uint64_t>();
    }
    unused.emplace(std::move(*held));
  }
  QCACHE_TRY_ASSIGN(const uint64_t bytes, drop_filling_locked(file));
  if (entry.has_value()) {
    spdlog::info("dropped {}: {}", entry->record.virtual_path, reason);
  }
  return std::optional(bytes);
}

Result<std::vector<CacheEntry>> Store::remove_leftovers(bool dry_run) {
  QCACHE_TRY_ASSIGN(const DirectoryLock lock, DirectoryLock::acquire(env_, directory_.lock_path()));
  std::vector<Leftover> leftovers;
  const auto add = [&](Record record, bool sealed, std::vector<std::string> paths) -> Status {
    Leftover leftover;
    leftover.entry.record = std::move(record);
    leftover.entry.sealed = sealed;
    leftover.entry.progress = 0;
    leftover.paths = std::move(paths);
    for (const std::string& path : leftover.paths) {
      QCACHE_TRY_ASSIGN(const auto stat, stat_if_there(env_, path));
      leftover.entry.disk_bytes += stat.has_value() ? stat->allocated_bytes : 0;
      QCACHE_TRY_ASSIGN(const auto unused, RemovalLock::try_acquire(env_, path));
      leftover.entry.in_use = leftover.entry.in_use || !unused.has_value();
    }
    if (!leftover.entry.in_use) {
      leftovers.push_back(std::move(leftover));
    }
    return {};
  };

  QCACHE_TRY_ASSIGN(const auto records, catalog_->list());
  QCACHE_TRY_ASSIGN(const auto names, env_.list(directory_.path()));
  std::set<std::string> recorded;
  std::set<std::string> kept;  // can be recovered
  for (const Record& record : records) {
    recorded.insert(record.file);
    if (std::find(names.begin(), names.end(), record.file) == names.end()) {
      QCACHE_TRY(add(record, true, {directory_.sealed_path(record.file)}));
    }
  }
  for (const std::string& name : names) {
    if (is_artifact_file_name(name) && !recorded.contains(name)) {
      QCACHE_TRY_ASSIGN(const std::string map, map_of_unrecorded(name));
      if (!map.empty()) {
        if (!dry_run) {
          QCACHE_TRY(recover_locked(name));
        }
        kept.insert(name);
        continue;
      }
      Record nameless;
      nameless.file = name;
      QCACHE_TRY(add(std::move(nameless), true, {directory_.sealed_path(name)}));
    }
  }
  for (const std::string& name : names) {
    if (name.ends_with(kMapSuffix)) {
      Record nameless;
      nameless.file = name.substr(0, name.size() - kMapSuffix.size());
      if (is_artifact_file_name(nameless.file) && !recorded.contains(nameless.file) &&
          std::find(names.begin(), names.end(), nameless.file) == names.end()) {
        QCACHE_TRY(add(std::move(nameless), false, {directory_.path() + '/' + name}));
      }
    }
  }
  QCACHE_TRY_ASSIGN(const auto filling, filling_names());
  for (const std::string& name : filling) {
    QCACHE_TRY_ASSIGN(const auto whole, filling_entry(name));
    if (!whole.has_value() && !kept.contains(name)) {
      Record nameless;
      nameless.file = name;
      QCACHE_TRY(add(std::move(nameless), false, {directory_.map_path(name), directory_.filling_path(name)}));
    }
  }
  QCACHE_TRY_ASSIGN(const auto filling_directory, env_.list(directory_.filling_directory()));
  for (const std::string& name : filling_directory) {
    if (name.ends_with(".new")) {
      Record nameless;
      nameless.file = name;
      QCACHE_TRY(add(std::move(nameless), false, {directory_.filling_directory() + '/' + name}));
    }
  }

  std::vector<CacheEntry> removed;
  for (Leftover& leftover : leftovers) {
    if (!dry_run) {
      if (leftover.entry.sealed) {
        QCACHE_TRY(drop_sealed_locked(leftover.entry.record.file));
      } else {
        for (const std::string& path : leftover.paths) {
          QCACHE_TRY(remove_if_there(env_, path));
        }
      }
      spdlog::info("dropped {}: left behind by a crash", leftover.paths.front());
    }
    removed.push_back(std::move(leftover.entry));
  }
  return removed;
}

}  // namespace qcache

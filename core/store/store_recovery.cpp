#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <iterator>
#include <set>
#include <utility>

#include "core/store/file_lock.h"
#include "core/store/named_file.h"
#include "core/store/store.h"

namespace qcache {

// Files without a record, where a reader came between: seal() and demote() hold the directory lock from the rename to
// the commit, so under it such a file is never one that is about to get its record.
Status Store::settle_unrecorded(const std::string& file) {
  const std::string path = directory_.sealed_path(file);
  QCACHE_TRY_ASSIGN(const auto seen, stat_if_there(env_, path));
  if (!seen.has_value()) {
    return {};
  }
  QCACHE_TRY_ASSIGN(auto record, catalog_->find(file));
  if (record.has_value()) {
    return {};  // of another recipe: no reason to wait for the lock
  }
  QCACHE_TRY_ASSIGN(const DirectoryLock lock, DirectoryLock::acquire(env_, directory_.lock_path()));
  QCACHE_TRY_ASSIGN(record, catalog_->find(file));
  if (record.has_value()) {
    return {};
  }
  QCACHE_TRY_ASSIGN(const bool recovered, recover_locked(file));
  if (!recovered) {
    QCACHE_TRY(drop_sealed_locked(file));
    spdlog::warn("dropped {}: it has neither a record nor a map", path);
  }
  return {};
}

// All of them, as after the loss of the catalog.
Status Store::recover_unrecorded() {
  QCACHE_TRY_ASSIGN(const auto names, env_.list(directory_.path()));
  QCACHE_TRY_ASSIGN(const auto files, catalog_->files());
  const std::set<std::string> recorded(files.begin(), files.end());
  std::vector<std::string> unrecorded;
  std::copy_if(names.begin(), names.end(), std::back_inserter(unrecorded),
               [&](const std::string& name) { return is_artifact_file_name(name) && !recorded.contains(name); });
  if (unrecorded.empty()) {
    return {};
  }
  QCACHE_TRY_ASSIGN(const DirectoryLock lock, DirectoryLock::acquire(env_, directory_.lock_path()));
  for (const std::string& file : unrecorded) {
    QCACHE_TRY_ASSIGN(const auto record, catalog_->find(file));
    if (!record.has_value()) {
      QCACHE_TRY(recover_locked(file));
    }
  }
  return {};
}

// The map by which a sealed file without a record can be checked: the one that is kept beside it; or that in filling/,
// where a crash came between the renaming of the two. None (empty) where there is no such map, it is not wholly marked,
// or other bytes are being made under the name. (The same are in a copy of a directory in use.)
Result<std::string> Store::map_of_unrecorded(const std::string& file) {
  QCACHE_TRY_ASSIGN(const auto sealed, stat_if_there(env_, directory_.sealed_path(file)));
  QCACHE_TRY_ASSIGN(const auto filling, stat_if_there(env_, directory_.filling_path(file)));
  if (!sealed.has_value()) {
    return std::string();
  }
  QCACHE_TRY_ASSIGN(const auto being_made, filling_entry(file));
  for (const std::string& path : {directory_.kept_map_path(file), directory_.map_path(file)}) {
    if (path == directory_.map_path(file) && filling.has_value()) {
      continue;  // it is that of the filling file
    }
    auto fd = open_named(env_, path, O_RDONLY);
    if (!fd.has_value() && fd.error().kind == ErrorKind::kNotFound) {
      continue;
    }
    if (!fd.has_value()) {
      return fail(std::move(fd).error());
    }
    const auto map = TileMap::summarize(env_, fd->get());
    if (!map.has_value() && map.error().kind != ErrorKind::kCorrupt) {
      return fail(map.error());
    }
    if (map.has_value() && map->key.file == file && map->key.size_bytes == sealed->size_bytes &&
        map->marked_count == map->key.tile_count &&
        (!being_made.has_value() || being_made->record.recipe == map->key.recipe)) {
      return path;
    }
  }
  return std::string();
}

// The map first: without its data file there, it is still found by map_of_unrecorded(). False where there is none.
Result<bool> Store::recover_locked(const std::string& file) {
  QCACHE_TRY_ASSIGN(const std::string map_path, map_of_unrecorded(file));
  if (map_path.empty()) {
    return false;
  }
  const std::string sealed_path = directory_.sealed_path(file);
  QCACHE_TRY_ASSIGN(const auto sealed, stat_if_there(env_, sealed_path));
  QCACHE_TRY(leave_to_other_names(file, sealed.has_value() ? sealed->size_bytes : 0));
  QCACHE_TRY_ASSIGN(const UniqueFd data, open_named(env_, sealed_path, O_RDONLY));
  QCACHE_TRY_ASSIGN(const UniqueFd map, open_named(env_, map_path, O_RDWR));
  QCACHE_TRY(TileMap::set_complete(env_, map.get(), false));  // what proves wrong is made again, tile by tile
  (void)env_.touch(map.get());                                // for aging: when it was last used went with the record
  if (map_path != directory_.map_path(file)) {
    QCACHE_TRY(drop_filling_locked(file));
    QCACHE_TRY(env_.rename(map_path, directory_.map_path(file)));
  }
  QCACHE_TRY(env_.change_mode(data.get(), 0600));
  QCACHE_TRY(env_.rename(sealed_path, directory_.filling_path(file)));
  QCACHE_TRY(env_.sync_directory(directory_.filling_directory()));
  QCACHE_TRY(env_.sync_directory(directory_.path()));
  spdlog::warn("the record of {} was lost: it is checked before it is served, and saved again", sealed_path);
  return true;
}

}  // namespace qcache

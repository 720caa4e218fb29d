#include "core/store/store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <cerrno>
#include <utility>

#include "core/store/file_digest.h"
#include "core/store/file_lock.h"
#include "core/store/named_file.h"

namespace qcache {
namespace {

constexpr mode_t kSealedMode = 0444;
constexpr mode_t kFillingMode = 0600;

Status check_name(const std::string& file) {
  if (!is_artifact_file_name(file)) {
    return fail(ErrorKind::kInvalidArgument, fmt::format("'{}' is not the name of a cached file", file));
  }
  return {};
}

Status change_mode(int fd, mode_t mode, const std::string& file) {
  if (::fchmod(fd, mode) != 0) {
    return fail(system_error(errno, fmt::format("cannot change the permissions of the cached file {}", file)));
  }
  return {};
}

// The digest of every tile; an error where one is not made, or not hashed.
Result<std::vector<Sha256Digest>> digests_of(const FillingFile& filling) {
  std::vector<Sha256Digest> digests;
  digests.reserve(filling.key().tile_count);
  for (uint32_t tile = 0; tile < filling.key().tile_count; ++tile) {
    const auto mark = filling.mark_of(tile);
    if (!mark.has_value() || !mark->digest.has_value()) {
      return fail(ErrorKind::kBusy, fmt::format("{} cannot be saved yet: its tile {} is not {}",
                                                filling.key().virtual_path, tile, mark ? "hashed" : "made"));
    }
    digests.push_back(*mark->digest);
  }
  return digests;
}

}  // namespace

Store::Store(Env& env, CacheDirectory directory, std::shared_ptr<Catalog> catalog)
    : env_(env), directory_(std::move(directory)), catalog_(std::move(catalog)) {}

Result<std::shared_ptr<Store>> Store::open(Env& env, CacheDirectory directory) {
  QCACHE_TRY_ASSIGN(auto catalog, Catalog::open(directory.index_path()));
  const std::shared_ptr<Store> store(new Store(env, std::move(directory), std::move(catalog)));
  // So that they are listed. Who cannot do it now can still use the rest; they are looked at again when they are read.
  if (const Status recovered = store->recover_unrecorded(); !recovered.has_value()) {
    spdlog::warn("cached files without a record stay as they are for now: {}", recovered.error().message);
  }
  return store;
}

Result<SealedState> Store::find_sealed(const std::string& file, const Sha256Digest& recipe, SealedFile& out) {
  QCACHE_TRY(check_name(file));
  const std::string path = directory_.sealed_path(file);
  // Another process may replace or remove the file between any two steps; then what was seen is of no use.
  constexpr int kLooks = 5;
  for (int look = 0; look < kLooks; ++look) {
    QCACHE_TRY_ASSIGN(auto record, catalog_->find(file));
    if (!record.has_value()) {
      QCACHE_TRY(settle_unrecorded(file));
      return SealedState::kAbsent;
    }
    if (record->recipe != recipe) {
      QCACHE_TRY_ASSIGN(const auto dropped,
                        drop_sealed(*record, "its model or its dtype's scheme has changed since", WhenInUse::kDrop));
      if (dropped.has_value()) {
        return SealedState::kStale;
      }
      continue;
    }
    auto fd = env_.open(path, O_RDONLY);
    if (!fd.has_value()) {
      if (fd.error().kind != ErrorKind::kNotFound) {
        return fail(std::move(fd).error());
      }
      QCACHE_TRY_ASSIGN(const auto dropped, drop_sealed(*record, "its file is gone", WhenInUse::kDrop));
      if (dropped.has_value()) {
        return SealedState::kAbsent;
      }
      continue;
    }
    QCACHE_TRY_ASSIGN(const bool leased, try_lease(fd->get()));
    if (!leased) {
      return SealedState::kAbsent;  // it is being removed
    }
    QCACHE_TRY_ASSIGN(const bool current, leads_to(env_, path, fd->get()));
    if (!current) {
      continue;
    }
    QCACHE_TRY_ASSIGN(const FileStat stat, env_.stat(fd->get()));
    if (BackingStamp::of(stat) == record->backing) {
      out = SealedFile{std::move(*fd), std::move(*record)};
      return SealedState::kTrusted;
    }
    QCACHE_TRY_ASSIGN(const auto again, catalog_->find(file));
    if (again.has_value() && again->backing == record->backing) {
      spdlog::warn("{} was touched since it was saved; it is checked again before it is served ({})",
                   record->virtual_path, path);
      return SealedState::kSuspect;
    }
  }
  return fail(ErrorKind::kBusy, fmt::format("other processes keep replacing the cached file {}; try again", path));
}

Result<std::shared_ptr<FillingFile>> Store::open_filling(const FillingKey& key) {
  return FillingFile::open(env_, directory_, key, [&]() -> Result<bool> {
    QCACHE_TRY_ASSIGN(const auto record, catalog_->find(key.file));
    return record.has_value() && record->recipe == key.recipe;
  });
}

Result<std::optional<Record>> Store::peek_sealed(const std::string& file, const Sha256Digest& recipe) {
  QCACHE_TRY(check_name(file));
  QCACHE_TRY_ASSIGN(auto record, catalog_->find(file));
  if (!record.has_value() || record->recipe != recipe) {
    return std::optional<Record>();
  }
  QCACHE_TRY_ASSIGN(const bool trusted, is_trusted(*record));
  return trusted ? std::move(record) : std::nullopt;
}

Result<bool> Store::is_trusted(const Record& record) {
  QCACHE_TRY_ASSIGN(const auto stat, stat_if_there(env_, directory_.sealed_path(record.file)));
  return stat.has_value() && BackingStamp::of(*stat) == record.backing;
}

Status Store::demote(const std::string& file) {
  QCACHE_TRY(check_name(file));
  QCACHE_TRY_ASSIGN(const DirectoryLock lock, DirectoryLock::acquire(env_, directory_.lock_path()));
  QCACHE_TRY_ASSIGN(const auto record, catalog_->find(file));
  if (!record.has_value()) {
    return {};
  }
  QCACHE_TRY_ASSIGN(const auto stat, stat_if_there(env_, directory_.sealed_path(file)));
  if (!stat.has_value() || BackingStamp::of(*stat) == record->backing) {
    return {};
  }
  QCACHE_TRY_ASSIGN(const auto tiles, catalog_->tile_digests(file));
  if (stat->size_bytes == record->size_bytes && tiles.size() != record->tile_count) {
    QCACHE_TRY(catalog_->erase(file));
    QCACHE_TRY_ASSIGN(const bool recovered, recover_locked(file));
    if (recovered) {
      return {};
    }
  }
  if (stat->size_bytes != record->size_bytes || tiles.size() != record->tile_count) {
    QCACHE_TRY(drop_sealed_locked(file));
    spdlog::warn("dropped {}: its length is not what was saved", record->virtual_path);
    return {};
  }
  return demote_locked(*record, tiles);
}

// 1. the map is complete on disk, under a temporary name   (a crash: a leftover)
// 2. the map has its name                                   (a crash: half a pair beside a suspect file)
// 3. the record is gone                                     (a crash: a file without a record)
// 4. the data file has its name in filling/                 (done)
Status Store::demote_locked(const Record& record, const std::vector<Sha256Digest>& tiles) {
  const std::string sealed_path = directory_.sealed_path(record.file);
  const std::string map_path = directory_.map_path(record.file);
  const std::string new_map = map_path + ".new";
  QCACHE_TRY_ASSIGN(const UniqueFd data, env_.open(sealed_path, O_RDONLY));
  Status prepared = [&]() -> Status {
    QCACHE_TRY_ASSIGN(const UniqueFd fd, env_.open(new_map, O_RDWR | O_CREAT | O_TRUNC, kFillingMode));
    QCACHE_TRY(TileMap::format(
        env_, fd.get(), {record.file, record.virtual_path, record.recipe, record.size_bytes, record.tile_count}));
    QCACHE_TRY_ASSIGN(const auto map, TileMap::map(env_, fd.get()));
    for (uint32_t tile = 0; tile < record.tile_count; ++tile) {
      QCACHE_TRY(map->mark(tile, {.digest = tiles[tile], .crc = std::nullopt}));
    }
    QCACHE_TRY(env_.sync(fd.get()));
    QCACHE_TRY(drop_filling_locked(record.file));
    QCACHE_TRY(env_.rename(new_map, map_path));
    QCACHE_TRY(remove_if_there(env_, directory_.kept_map_path(record.file)));
    return catalog_->erase(record.file);
  }();
  if (!prepared.has_value()) {
    (void)env_.remove(new_map);  // best effort: leftovers are removed later
    (void)env_.remove(map_path);
    return prepared;
  }
  QCACHE_TRY(change_mode(data.get(), kFillingMode, record.file));
  QCACHE_TRY(env_.rename(sealed_path, directory_.filling_path(record.file)));
  QCACHE_TRY(env_.sync_directory(directory_.filling_directory()));
  return env_.sync_directory(directory_.path());
}

Result<std::optional<Record>> Store::seal(FillingFile& filling, Record draft, std::span<const TensorQuality> quality,
                                          const KeepGoing& keep_going) {
  const FillingKey& key = filling.key();
  QCACHE_TRY_ASSIGN(const auto tiles, digests_of(filling));
  // Only starts the writing, so that the disk works while the processor hashes; errors show in sync() below.
  ::sync_file_range(filling.fd(), 0, 0, SYNC_FILE_RANGE_WRITE);
  QCACHE_TRY_ASSIGN(const auto digest, digest_of_file(env_, filling.fd(), key.size_bytes, keep_going));
  if (!digest.has_value()) {
    abandon(filling, "its length changed while it was being made");
    return fail(ErrorKind::kCorrupt, fmt::format("{} was changed by another program while it was being made",
                                                 directory_.filling_path(key.file)));
  }
  if (Status synced = env_.sync(filling.fd()); !synced.has_value()) {
    // The kernel reports a failed write once; a second sync would succeed and prove nothing.
    abandon(filling, "it could not be written to disk");
    return fail(std::move(synced).error());
  }
  draft.file = key.file;
  draft.recipe = key.recipe;
  draft.size_bytes = key.size_bytes;
  draft.tile_count = key.tile_count;
  draft.sha256 = *digest;

  QCACHE_TRY_ASSIGN(const DirectoryLock lock, DirectoryLock::acquire(env_, directory_.lock_path()));
  QCACHE_TRY_ASSIGN(const bool current, filling.names_lead_here());
  if (!current) {
    return std::optional<Record>();
  }
  // Somebody may have found a tile wrong and made it again while we were hashing.
  QCACHE_TRY_ASSIGN(const auto tiles_now, digests_of(filling));
  if (tiles_now != tiles) {
    return fail(ErrorKind::kBusy,
                fmt::format("a tile of {} was made again while it was being saved; try again", key.virtual_path));
  }
  return commit_sealed_locked(filling, std::move(draft), tiles, quality);
}

Result<std::optional<Record>> Store::commit_sealed_locked(FillingFile& filling, Record record,
                                                          const std::vector<Sha256Digest>& tiles,
                                                          std::span<const TensorQuality> quality) {
  QCACHE_TRY_ASSIGN(const auto old, catalog_->find(record.file));
  if (old.has_value()) {
    QCACHE_TRY_ASSIGN(const bool trusted, is_trusted(*old));
    if (trusted && old->recipe == record.recipe) {
      QCACHE_TRY(drop_filling_locked(record.file));  // made twice, by processes that did not see each other
      return old;
    }
    // It must not stand for the new bytes, not even for a moment.
    QCACHE_TRY(catalog_->erase(record.file));
  }
  // Nor its map beside them.
  QCACHE_TRY(remove_if_there(env_, directory_.kept_map_path(record.file)));
  QCACHE_TRY(env_.rename(directory_.filling_path(record.file), directory_.sealed_path(record.file)));
  const Status committed = [&]() -> Status {
    QCACHE_TRY(change_mode(filling.fd(), kSealedMode, record.file));
    QCACHE_TRY(env_.sync_directory(directory_.path()));
    QCACHE_TRY(env_.sync_directory(directory_.filling_directory()));
    QCACHE_TRY_ASSIGN(const FileStat stat, env_.stat(filling.fd()));
    record.backing = BackingStamp::of(stat);
    return catalog_->put(record, tiles, quality);
  }();
  if (!committed.has_value()) {
    undo_rename_locked(filling);
    return fail(committed.error());
  }
  // Not synced: a map that is back in its old place after a power cut has no data file there, and is a leftover.
  if (const Status kept = env_.rename(directory_.map_path(record.file), directory_.kept_map_path(record.file));
      !kept.has_value()) {
    spdlog::warn("{}; it is removed later", kept.error().message);
  }
  spdlog::info("saved {}: {} bytes, sha256 {}...", record.virtual_path, record.size_bytes,
               to_hex(std::span(record.sha256).first(4)));
  return std::optional(std::move(record));
}

// The bytes are right and the map is still there, so the file can go on as a filling one. If not even that works, it
// is a file without a record and dropped later.
void Store::undo_rename_locked(const FillingFile& filling) {
  const std::string& file = filling.key().file;
  Status undone = change_mode(filling.fd(), kFillingMode, file);
  if (undone.has_value()) {
    undone = env_.rename(directory_.sealed_path(file), directory_.filling_path(file));
  }
  if (!undone.has_value()) {
    spdlog::error("{} is lost and made again: {}", filling.key().virtual_path, undone.error().message);
  }
}

// Takes the names from a filling file whose bytes cannot be relied on. Best effort: readers check tiles they did not
// make.
void Store::abandon(const FillingFile& filling, std::string_view reason) {
  const Status abandoned = [&]() -> Status {
    QCACHE_TRY_ASSIGN(const DirectoryLock lock, DirectoryLock::acquire(env_, directory_.lock_path()));
    QCACHE_TRY_ASSIGN(const bool current, filling.names_lead_here());
    if (current) {
      QCACHE_TRY(drop_filling_locked(filling.key().file));
    }
    return {};
  }();
  if (abandoned.has_value()) {
    spdlog::error("dropped {}: {}", filling.key().virtual_path, reason);
  } else {
    spdlog::error("cannot drop {} ({}): {}", filling.key().virtual_path, reason, abandoned.error().message);
  }
}

Result<std::optional<SealedFile>> Store::open_verified(const Record& record, const KeepGoing& keep_going) {
  QCACHE_TRY(check_name(record.file));
  const std::string path = directory_.sealed_path(record.file);
  QCACHE_TRY_ASSIGN(UniqueFd fd, env_.open(path, O_RDONLY));
  QCACHE_TRY_ASSIGN(const bool leased, try_lease(fd.get()));
  if (!leased) {
    return fail(ErrorKind::kBusy, fmt::format("{} is just being removed", path));
  }
  QCACHE_TRY_ASSIGN(const auto digest, digest_of_file(env_, fd.get(), record.size_bytes, keep_going));
  if (digest != record.sha256) {
    return std::optional<SealedFile>();
  }
  return SealedFile{std::move(fd), record};
}

Result<bool> Store::verify(const Record& record, const KeepGoing& keep_going) {
  QCACHE_TRY_ASSIGN(const auto opened, open_verified(record, keep_going));
  return opened.has_value();
}

}  // namespace qcache

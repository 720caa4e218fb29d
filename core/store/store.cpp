#include "core/store/store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
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

// Where a file of the recipe may lie; who looks there goes by this order.
std::array<std::string, 2> names_of(const std::string& base, const Sha256Digest& recipe) {
  return {base, file_name_beside(base, recipe)};
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
  auto catalog = Catalog::open(directory.index_path());
  if (!catalog.has_value()) {
    return fail(cache_unusable(std::move(catalog).error()));
  }
  return open(env, std::move(directory), *std::move(catalog));
}

Result<std::shared_ptr<Store>> Store::open(Env& env, CacheDirectory directory, std::shared_ptr<Catalog> catalog) {
  const std::shared_ptr<Store> store(new Store(env, std::move(directory), std::move(catalog)));
  // So that they are listed. Who cannot do it now can still use the rest; they are looked at again when they are read.
  if (const Status recovered = store->recover_unrecorded(); !recovered.has_value()) {
    spdlog::warn("cached files without a record stay as they are for now: {}", recovered.error().message);
  }
  return store;
}

Result<std::optional<Record>> Store::find_record(const std::string& base, const Sha256Digest& recipe) {
  for (const std::string& file : names_of(base, recipe)) {
    QCACHE_TRY_ASSIGN(auto record, catalog_->find(file));
    if (record.has_value() && record->recipe == recipe) {
      return record;
    }
  }
  return std::optional<Record>();
}

Result<SealedState> Store::find_sealed(const std::string& base, const Sha256Digest& recipe, SealedFile& out) {
  QCACHE_TRY(check_name(base));
  // Another process may replace or remove the file between any two steps; then what was seen is of no use.
  constexpr int kLooks = 5;
  for (int look = 0; look < kLooks; ++look) {
    QCACHE_TRY_ASSIGN(auto record, find_record(base, recipe));
    if (!record.has_value()) {
      for (const std::string& file : names_of(base, recipe)) {
        QCACHE_TRY(settle_unrecorded(file));
      }
      return SealedState::kAbsent;
    }
    const std::string path = directory_.sealed_path(record->file);
    auto fd = open_named(env_, path, O_RDONLY);
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
    QCACHE_TRY_ASSIGN(const bool leased, try_lease(env_, fd->get()));
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
    QCACHE_TRY_ASSIGN(const auto again, catalog_->find(record->file));
    if (again.has_value() && again->backing == record->backing) {
      spdlog::warn("{} was touched since it was saved; it is checked again before it is served ({})",
                   record->virtual_path, path);
      out.record = std::move(*record);
      return SealedState::kSuspect;
    }
  }
  return fail(ErrorKind::kBusy, fmt::format("other processes keep replacing the cached file {}; try again",
                                            directory_.sealed_path(base)));
}

Result<std::shared_ptr<FillingFile>> Store::open_filling(FillingKey key) {
  QCACHE_TRY(check_name(key.file));
  const std::string base = key.file;
  const auto names = names_of(base, key.recipe);
  // Names are given and taken under this lock only, so what is seen here stays as it is.
  QCACHE_TRY_ASSIGN(const DirectoryLock lock, DirectoryLock::acquire(env_, directory_.lock_path()));
  for (const std::string& file : names) {
    key.file = file;
    QCACHE_TRY_ASSIGN(auto resumed, FillingFile::resume(env_, directory_, key));
    if (resumed) {
      return resumed;
    }
  }
  QCACHE_TRY_ASSIGN(const auto record, find_record(base, key.recipe));
  if (record.has_value()) {
    return std::shared_ptr<FillingFile>();
  }
  QCACHE_TRY_ASSIGN(const bool taken, is_taken_locked(base));
  key.file = names[taken ? 1 : 0];
  return FillingFile::begin(env_, directory_, key);
}

// Whether a file of another recipe than the one that is asked about has the name: a complete one, one that is being
// made, or one that was complete before or would be in a moment.
Result<bool> Store::is_taken_locked(const std::string& file) {
  QCACHE_TRY_ASSIGN(const auto record, catalog_->find(file));
  if (record.has_value()) {
    QCACHE_TRY_ASSIGN(const auto sealed, stat_if_there(env_, directory_.sealed_path(file)));
    if (sealed.has_value()) {
      return true;
    }
  }
  QCACHE_TRY_ASSIGN(const auto filling, filling_entry(file));
  if (!filling.has_value()) {
    return false;
  }
  QCACHE_TRY_ASSIGN(const auto unused, RemovalLock::try_acquire(env_, directory_.filling_path(file)));
  return !unused.has_value() || filling->progress >= 1.0 || filling->record.created_ns != 0;
}

Result<std::optional<SealedLook>> Store::peek_sealed(const std::string& base, const Sha256Digest& recipe) {
  QCACHE_TRY(check_name(base));
  QCACHE_TRY_ASSIGN(auto record, find_record(base, recipe));
  if (!record.has_value()) {
    return std::optional<SealedLook>();
  }
  QCACHE_TRY_ASSIGN(const auto stat, stat_if_there(env_, directory_.sealed_path(record->file)));
  if (!stat.has_value()) {
    return std::optional<SealedLook>();
  }
  const bool trusted = BackingStamp::of(*stat) == record->backing;
  return std::optional(SealedLook{std::move(*record), trusted, stat->allocated_bytes});
}

Result<std::optional<FillingLook>> Store::peek_filling(const std::string& base, const Sha256Digest& recipe) {
  QCACHE_TRY(check_name(base));
  for (const std::string& file : names_of(base, recipe)) {
    QCACHE_TRY_ASSIGN(const auto data, stat_if_there(env_, directory_.filling_path(file)));
    if (data.has_value()) {
      QCACHE_TRY_ASSIGN(const auto key, filling_key(file));
      if (key.has_value() && key->recipe == recipe) {
        return std::optional(FillingLook{file, data->allocated_bytes});
      }
    }
  }
  return std::optional<FillingLook>();
}

Result<std::vector<Record>> Store::find_all(const std::string& base) {
  QCACHE_TRY_ASSIGN(std::vector<Record> records, catalog_->list());
  std::erase_if(records, [&](const Record& record) { return base_file_name(record.file) != base; });
  std::stable_sort(records.begin(), records.end(),
                   [](const Record& a, const Record& b) { return a.created_ns > b.created_ns; });
  return records;
}

Result<std::optional<Store::KeptInMap>> Store::find_kept(const std::string& base, const Sha256Digest& recipe) {
  for (const std::string& file : names_of(base, recipe)) {
    QCACHE_TRY_ASSIGN(const auto key, filling_key(file));
    if (!key.has_value() || key->recipe != recipe) {
      continue;
    }
    auto opened = open_named(env_, directory_.map_path(file), O_RDWR);
    if (!opened.has_value() && opened.error().kind == ErrorKind::kNotFound) {
      continue;  // it was just sealed, or dropped
    }
    QCACHE_TRY_ASSIGN(UniqueFd map, std::move(opened));
    QCACHE_TRY_ASSIGN(auto kept, read_kept(env_, map.get()));
    QCACHE_TRY_ASSIGN(const TileMap::Summary summary, TileMap::summarize(env_, map.get()));
    if (!kept.has_value() && summary.complete) {  // what is set now is kept until it is sealed
      const int64_t now_ns = env_.now_ns();
      kept = Kept{now_ns, now_ns, 0, false};
    }
    if (kept.has_value()) {
      return std::optional(KeptInMap{std::move(map), *kept});
    }
  }
  return std::optional<KeptInMap>();
}

Result<std::optional<bool>> Store::is_pinned(const std::string& base, const Sha256Digest& recipe) {
  QCACHE_TRY(check_name(base));
  constexpr int kLooks = 2;  // what is sealed between two looks at its names is seen by the next
  for (int look = 0; look < kLooks; ++look) {
    QCACHE_TRY_ASSIGN(const auto record, find_record(base, recipe));
    if (record.has_value()) {
      return std::optional(record->pinned);
    }
    QCACHE_TRY_ASSIGN(const auto found, find_kept(base, recipe));
    if (found.has_value()) {
      return std::optional(found->kept.pinned);
    }
  }
  return std::optional<bool>();
}

Status Store::set_pinned(const std::string& base, const Sha256Digest& recipe, bool pinned) {
  QCACHE_TRY(check_name(base));
  QCACHE_TRY_ASSIGN(const DirectoryLock lock, DirectoryLock::acquire(env_, directory_.lock_path()));
  QCACHE_TRY_ASSIGN(const auto record, find_record(base, recipe));
  if (record.has_value()) {
    return catalog_->set_pinned(record->file, pinned);
  }
  QCACHE_TRY_ASSIGN(auto found, find_kept(base, recipe));
  if (found.has_value()) {
    found->kept.pinned = pinned;
    return write_kept(env_, found->map.get(), found->kept);
  }
  return fail(ErrorKind::kNotFound,
              fmt::format("no complete file of the model as it is now is cached as {}; 'qcache warm' makes one", base));
}

Status Store::unpin_all(const std::string& base) {
  QCACHE_TRY_ASSIGN(const auto all, entries());
  bool found = false;
  for (const CacheEntry& entry : all) {
    const bool was_complete = entry.sealed || entry.record.created_ns != 0;
    if (was_complete && base_file_name(entry.record.file) == base) {
      QCACHE_TRY(set_pinned(entry.record.file, entry.record.recipe, false));
      found = true;
    }
  }
  if (!found) {
    return fail(ErrorKind::kNotFound, fmt::format("no complete file is cached as {}", base));
  }
  return {};
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
  if (tiles.size() != record->tile_count) {
    if (stat->size_bytes == record->size_bytes) {
      QCACHE_TRY(catalog_->erase(file));
      QCACHE_TRY_ASSIGN(const bool recovered, recover_locked(file));
      if (recovered) {
        return {};
      }
    }
    QCACHE_TRY(drop_sealed_locked(file));
    spdlog::warn("dropped {}: the digests of its tiles are lost", record->virtual_path);
    return {};
  }
  return demote_locked(*record, tiles);
}

// Where the complete file has another name, by which somebody keeps it (a copy by hard links) or which it had before,
// what lies there stays as it is: an empty file of `size_bytes` bytes takes the name in the cache directory, and its
// tiles are made again. (Copying them would hold up everybody who waits for the directory lock.) Whether that was so.
Result<bool> Store::leave_to_other_names(const std::string& file, uint64_t size_bytes) {
  const std::string path = directory_.sealed_path(file);
  QCACHE_TRY_ASSIGN(const UniqueFd data, open_named(env_, path, O_RDONLY));
  QCACHE_TRY_ASSIGN(const FileStat facts, env_.stat(data.get()));
  if (facts.links <= 1) {
    return false;
  }
  const std::string own_path = directory_.filling_path(file) + ".new";  // a leftover, should we be killed here
  QCACHE_TRY_ASSIGN(const UniqueFd own, begin_named(env_, own_path, kFillingMode));
  QCACHE_TRY(env_.truncate(own.get(), size_bytes));
  QCACHE_TRY(env_.rename(own_path, path));
  spdlog::warn("{} has another name elsewhere, where it stays as it is; it is made again here", path);
  return true;
}

// 1. the map is complete on disk, under a temporary name   (a crash: a leftover)
// 2. the map has its name                                   (a crash: half a pair beside a suspect file)
// 3. the data file has its length, and its name in filling/ (a crash: a record without a file beside a whole pair)
// 4. the record is gone                                     (done)
Status Store::demote_locked(const Record& record, const std::vector<Sha256Digest>& tiles) {
  const std::string sealed_path = directory_.sealed_path(record.file);
  const std::string map_path = directory_.map_path(record.file);
  const std::string new_map = map_path + ".new";
  QCACHE_TRY_ASSIGN(const bool emptied, leave_to_other_names(record.file, record.size_bytes));
  QCACHE_TRY_ASSIGN(const UniqueFd data, open_named(env_, sealed_path, O_RDONLY));
  QCACHE_TRY_ASSIGN(const FileStat stat, env_.stat(data.get()));
  Status prepared = [&]() -> Status {
    QCACHE_TRY_ASSIGN(const UniqueFd fd, begin_named(env_, new_map, kFillingMode));
    QCACHE_TRY(TileMap::format(
        env_, fd.get(), {record.file, record.virtual_path, record.recipe, record.size_bytes, record.tile_count}));
    QCACHE_TRY_ASSIGN(const auto map, TileMap::open(env_, fd.get()));
    for (uint32_t tile = 0; !emptied && tile < record.tile_count; ++tile) {
      QCACHE_TRY(map->mark(tile, {.digest = tiles[tile], .crc = std::nullopt}));
    }
    QCACHE_TRY(write_kept(env_, fd.get(), Kept::of(record)));
    QCACHE_TRY(env_.sync(fd.get()));
    QCACHE_TRY(drop_filling_locked(record.file));
    QCACHE_TRY(env_.rename(new_map, map_path));
    return remove_if_there(env_, directory_.kept_map_path(record.file));
  }();
  if (!prepared.has_value()) {
    (void)env_.remove(new_map);  // best effort: leftovers are removed later
    (void)env_.remove(map_path);
    return prepared;
  }
  QCACHE_TRY(env_.change_mode(data.get(), kFillingMode));
  if (stat.size_bytes != record.size_bytes) {
    // What is missing now does not have the digest of its tile, and so is made again.
    QCACHE_TRY_ASSIGN(const UniqueFd writable, open_named(env_, sealed_path, O_RDWR));
    QCACHE_TRY(env_.truncate(writable.get(), record.size_bytes));
  }
  QCACHE_TRY(env_.rename(sealed_path, directory_.filling_path(record.file)));
  QCACHE_TRY(env_.sync_directory(directory_.filling_directory()));
  QCACHE_TRY(env_.sync_directory(directory_.path()));
  env_.reached("demoted, still recorded");
  if (const Status erased = catalog_->erase(record.file); !erased.has_value()) {
    spdlog::warn("the record of {} stays until the next look: {}", sealed_path, erased.error().message);
  }
  return {};
}

Result<std::optional<Record>> Store::seal(FillingFile& filling, Record draft, std::span<const TensorQuality> quality,
                                          const KeepGoing& keep_going) {
  QCACHE_TRY_ASSIGN(const HashedFile hashed, prepare_seal(filling, {}, keep_going));
  return commit_seal(filling, std::move(draft), hashed, quality);
}

Result<HashedFile> Store::prepare_seal(FillingFile& filling, TilePlaces places, const KeepGoing& keep_going) {
  const FillingKey& key = filling.key();
  HashedFile hashed;
  QCACHE_TRY_ASSIGN(hashed.tiles, digests_of(filling));
  // Only starts the writing, so that the disk works while the processor hashes; errors show in sync() below.
  (void)env_.start_writeback(filling.fd());
  const auto digest = [&]() -> Result<std::optional<Sha256Digest>> {
    if (places.empty()) {
      return digest_of_file(env_, filling.fd(), key.size_bytes, keep_going);
    }
    QCACHE_TRY_ASSIGN(const auto rest, places.rest(key.size_bytes));
    return digest_of_ranges(env_, filling.fd(), rest, keep_going);
  };
  QCACHE_TRY_ASSIGN(const auto found, digest());
  QCACHE_TRY_ASSIGN(const FileStat stat, env_.stat(filling.fd()));
  if (!found.has_value() || stat.size_bytes != key.size_bytes) {
    abandon(filling, "its length changed while it was being made");
    return fail(ErrorKind::kCorrupt, fmt::format("{} was changed by another program while it was being made",
                                                 directory_.filling_path(key.file)));
  }
  if (places.empty()) {
    hashed.whole = *found;
  } else {
    hashed.parts = FileParts{std::move(places), *found};
  }
  if (Status synced = env_.sync(filling.fd()); !synced.has_value()) {
    // The kernel reports a failed write once; a second sync would succeed and prove nothing.
    abandon(filling, "it could not be written to disk");
    return fail(std::move(synced).error());
  }
  return hashed;
}

Result<std::optional<Record>> Store::commit_seal(FillingFile& filling, Record draft, const HashedFile& hashed,
                                                 std::span<const TensorQuality> quality) {
  const FillingKey& key = filling.key();
  draft.file = key.file;
  draft.recipe = key.recipe;
  draft.size_bytes = key.size_bytes;
  draft.tile_count = key.tile_count;
  draft.sha256 = hashed.whole;
  draft.root = hashed.parts ? hashed.parts->root(key.size_bytes, hashed.tiles) : Sha256Digest{};

  QCACHE_TRY_ASSIGN(const DirectoryLock lock, DirectoryLock::acquire(env_, directory_.lock_path()));
  QCACHE_TRY_ASSIGN(const bool current, filling.names_lead_here());
  if (!current) {
    return std::optional<Record>();
  }
  // Somebody may have found a tile wrong and made it again while we were hashing.
  QCACHE_TRY_ASSIGN(const auto tiles_now, digests_of(filling));
  if (tiles_now != hashed.tiles) {
    return fail(ErrorKind::kBusy,
                fmt::format("a tile of {} was made again while it was being saved; try again", key.virtual_path));
  }
  return commit_sealed_locked(filling, std::move(draft), hashed, quality);
}

Result<std::optional<Record>> Store::commit_sealed_locked(FillingFile& filling, Record record, const HashedFile& hashed,
                                                          std::span<const TensorQuality> quality) {
  const std::string& filling_file = filling.key().file;
  QCACHE_TRY_ASSIGN(auto old, catalog_->find(record.file));
  if (old.has_value() && old->recipe != record.recipe) {
    // Processes that did not see each other: both files stay.
    record.file = file_name_beside(filling_file, record.recipe);
    QCACHE_TRY_ASSIGN(old, catalog_->find(record.file));
  }
  if (old.has_value()) {
    QCACHE_TRY_ASSIGN(const bool trusted, is_trusted(*old));
    if (trusted && old->recipe == record.recipe) {
      QCACHE_TRY(drop_filling_locked(filling_file));  // made twice, by processes that did not see each other
      return old;
    }
    // It must not stand for the new bytes, not even for a moment.
    QCACHE_TRY(catalog_->erase(record.file));
  }
  QCACHE_TRY_ASSIGN(const auto kept, filling.kept());
  if (kept.has_value()) {
    kept->restore(record);
  } else {
    record.accessed_ns = std::max(record.accessed_ns, record.created_ns);
  }
  QCACHE_TRY(remove_if_there(env_, directory_.kept_map_path(record.file)));  // of another state
  const std::string sealed_path = directory_.sealed_path(record.file);
  QCACHE_TRY(env_.rename(directory_.filling_path(filling_file), sealed_path));
  const Status committed = [&]() -> Status {
    QCACHE_TRY(env_.change_mode(filling.fd(), kSealedMode));
    QCACHE_TRY(env_.sync_directory(directory_.path()));
    QCACHE_TRY(env_.sync_directory(directory_.filling_directory()));
    QCACHE_TRY_ASSIGN(const FileStat stat, env_.stat(filling.fd()));
    record.backing = BackingStamp::of(stat);
    env_.reached("sealed, not recorded");
    const auto parts = hashed.parts ? hashed.parts->encode() : std::vector<uint8_t>();
    return catalog_->put(record, hashed.tiles, parts, quality);
  }();
  if (!committed.has_value()) {
    undo_rename_locked(filling, sealed_path);
    return fail(committed.error());
  }
  // Not synced: a map that is back in its old place after a power cut has no data file there, and is a leftover.
  if (const Status moved = env_.rename(directory_.map_path(filling_file), directory_.kept_map_path(record.file));
      !moved.has_value()) {
    spdlog::warn("{}; it is removed later", moved.error().message);
  }
  spdlog::info("saved {}: {} bytes, {} {}...", record.virtual_path, record.size_bytes,
               record.has_parts() ? "root" : "sha256", to_hex(std::span(record.contents()).first(4)));
  return std::optional(std::move(record));
}

// The bytes are right and the map is still there, so the file can go on as a filling one. If not even that works, it
// is a file without a record and dropped later.
void Store::undo_rename_locked(const FillingFile& filling, const std::string& sealed_path) {
  const std::string& file = filling.key().file;
  Status undone = env_.change_mode(filling.fd(), kFillingMode);
  if (undone.has_value()) {
    undone = env_.rename(sealed_path, directory_.filling_path(file));
  }
  if (!undone.has_value()) {
    spdlog::error("{} is lost and made again: {}", filling.key().virtual_path, undone.error().message);
  }
}

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
  QCACHE_TRY_ASSIGN(UniqueFd fd, open_named(env_, path, O_RDONLY));
  QCACHE_TRY_ASSIGN(const bool leased, try_lease(env_, fd.get()));
  if (!leased) {
    return fail(ErrorKind::kBusy, fmt::format("{} is just being removed", path));
  }
  QCACHE_TRY_ASSIGN(const bool right, is_as_recorded(record, fd.get(), keep_going));
  return right ? std::optional(SealedFile{std::move(fd), record}) : std::nullopt;
}

Result<UniqueFd> Store::open_in_passing(const Record& record) {
  QCACHE_TRY(check_name(record.file));
  QCACHE_TRY_ASSIGN(const auto now, catalog_->find(record.file));
  if (!now.has_value() || now->backing != record.backing) {
    return UniqueFd();
  }
  auto fd = open_named(env_, directory_.sealed_path(record.file), O_RDONLY);
  if (!fd.has_value()) {
    return fd.error().kind == ErrorKind::kNotFound ? Result<UniqueFd>(UniqueFd()) : fail(std::move(fd).error());
  }
  QCACHE_TRY_ASSIGN(const FileStat stat, env_.stat(fd->get()));
  return BackingStamp::of(stat) == record.backing ? std::move(fd) : Result<UniqueFd>(UniqueFd());
}

Result<bool> Store::is_as_recorded(const Record& record, int fd, const KeepGoing& keep_going) {
  if (record.is_hashed()) {
    QCACHE_TRY_ASSIGN(const auto digest, digest_of_file(env_, fd, record.size_bytes, keep_going));
    return digest == record.sha256;
  }
  QCACHE_TRY_ASSIGN(const auto encoded, catalog_->parts(record.file));
  QCACHE_TRY_ASSIGN(const auto tiles, catalog_->tile_digests(record.file));
  const auto parts = FileParts::decode(encoded);
  if (!parts || parts->root(record.size_bytes, tiles) != record.root) {
    return false;  // what vouched for it is damaged, or belongs to another file
  }
  return has_parts(env_, fd, record.size_bytes, *parts, tiles, keep_going);
}

Result<bool> Store::verify(const Record& record, const KeepGoing& keep_going) {
  QCACHE_TRY_ASSIGN(const auto opened, open_verified(record, keep_going));
  return opened.has_value();
}

}  // namespace qcache

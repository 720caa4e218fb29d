#include "core/store/filling_file.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <limits>

#include "core/store/backoff.h"
#include "core/store/file_lock.h"
#include "core/store/named_file.h"

namespace qcache {
namespace {

// Of the map file; tiles have the bytes before it.
constexpr uint64_t kSealByte = uint64_t{1} << 32U;

Status check_key(const FillingKey& key) {
  if (!is_artifact_file_name(key.file)) {
    return fail(ErrorKind::kInvalidArgument, fmt::format("'{}' is not the name of a cached file", key.file));
  }
  if (key.size_bytes > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return fail(ErrorKind::kInvalidArgument, fmt::format("'{}' would be {} bytes long, which no filesystem holds",
                                                         key.virtual_path, key.size_bytes));
  }
  return {};
}

// Opens a file of an old pair. Nothing where it is absent, or may not be opened (made by another user): then it is
// replaced.
Result<UniqueFd> open_if_usable(Env& env, const std::string& path) {
  auto fd = open_named(env, path, O_RDWR);
  if (!fd.has_value() && (fd.error().kind == ErrorKind::kNotFound || fd.error().kind == ErrorKind::kPermission)) {
    return UniqueFd();
  }
  return fd;
}

}  // namespace

FillingFile::FillingFile(Env& env, CacheDirectory directory, FillingKey key)
    : env_(env), directory_(std::move(directory)), key_(std::move(key)) {}

FillingFile::~FillingFile() = default;

Result<std::shared_ptr<FillingFile>> FillingFile::open(Env& env, const CacheDirectory& directory,
                                                       const FillingKey& key) {
  QCACHE_TRY_ASSIGN(const DirectoryLock lock, DirectoryLock::acquire(env, directory.lock_path()));
  QCACHE_TRY_ASSIGN(auto file, resume(env, directory, key));
  return file ? std::move(file) : begin(env, directory, key);
}

// Pairs are made, leased and removed under the directory lock only, so what is seen here stays as it is.
Result<std::shared_ptr<FillingFile>> FillingFile::resume(Env& env, const CacheDirectory& directory,
                                                         const FillingKey& key) {
  QCACHE_TRY(check_key(key));
  std::shared_ptr<FillingFile> file(new FillingFile(env, directory, key));
  QCACHE_TRY_ASSIGN(const bool resumed, file->open_pair());
  if (!resumed) {
    return std::shared_ptr<FillingFile>();
  }
  file->expect_holes();
  return file;
}

Result<std::shared_ptr<FillingFile>> FillingFile::begin(Env& env, const CacheDirectory& directory,
                                                        const FillingKey& key) {
  QCACHE_TRY(check_key(key));
  std::shared_ptr<FillingFile> file(new FillingFile(env, directory, key));
  QCACHE_TRY(file->start());
  file->expect_holes();
  return file;
}

// The kernel would read ahead into the holes: it fills pages with zeros that are to be written soon, on the time of
// whoever reads what is there.
void FillingFile::expect_holes() {
  (void)env_.advise(data_.get(), ReadPattern::kRandom);
}

Result<bool> FillingFile::open_pair() {
  QCACHE_TRY_ASSIGN(UniqueFd data, open_if_usable(env_, directory_.filling_path(key_.file)));
  QCACHE_TRY_ASSIGN(UniqueFd map_fd, open_if_usable(env_, directory_.map_path(key_.file)));
  if (!data.valid() || !map_fd.valid()) {
    return false;
  }
  QCACHE_TRY_ASSIGN(const FileStat stat, env_.stat(data.get()));
  if (stat.size_bytes != key_.size_bytes) {
    return false;
  }
  auto map = TileMap::open(env_, map_fd.get());
  if (!map.has_value() && map.error().kind != ErrorKind::kCorrupt) {
    return fail(map.error());
  }
  if (!map.has_value() || !(*map)->key().makes_same_bytes(key_)) {
    return false;
  }
  QCACHE_TRY_ASSIGN(const bool leased, try_lease(env_, data.get()));
  if (!leased) {
    return fail(ErrorKind::kBusy,
                fmt::format("another process has locked {}; try again", directory_.filling_path(key_.file)));
  }
  data_ = std::move(data);
  map_fd_ = std::move(map_fd);
  map_ = std::move(*map);
  return true;
}

// The old map goes first and the new one comes last, so that at no moment a map stands beside a data file it was not
// made for: an older process may still be writing another recipe's bytes into the old data file.
Status FillingFile::start() {
  const std::string data_path = directory_.filling_path(key_.file);
  const std::string map_path = directory_.map_path(key_.file);
  // Fixed names: the directory lock is held, so whatever is there was left by a crash.
  const std::string new_data = data_path + ".new";
  const std::string new_map = map_path + ".new";
  Status made = [&]() -> Status {
    QCACHE_TRY_ASSIGN(map_fd_, begin_named(env_, new_map, 0600));
    QCACHE_TRY(TileMap::format(env_, map_fd_.get(), key_));
    QCACHE_TRY_ASSIGN(map_, TileMap::open(env_, map_fd_.get()));
    QCACHE_TRY_ASSIGN(data_, begin_named(env_, new_data, 0600));
    QCACHE_TRY(env_.truncate(data_.get(), key_.size_bytes));
    QCACHE_TRY_ASSIGN(const bool leased, try_lease(env_, data_.get()));
    if (!leased) {
      return fail(ErrorKind::kBusy, fmt::format("another process has locked {}; try again", new_data));
    }
    QCACHE_TRY(remove_if_there(env_, map_path));
    QCACHE_TRY(env_.rename(new_data, data_path));
    return env_.rename(new_map, map_path);
  }();
  if (!made.has_value()) {
    // Best effort: what stays is taken for a leftover, and overwritten or removed later.
    (void)env_.remove(new_map);
    (void)env_.remove(new_data);
  }
  return made;
}

void FillingFile::expect_reading_through() {
  (void)env_.advise(data_.get(), ReadPattern::kNormal);
}

void FillingFile::note_use() {
  (void)env_.touch(map_fd_.get());
}

std::optional<TileMark> FillingFile::mark_of(uint32_t tile) const {
  return map_->mark_of(tile);
}

Status FillingFile::mark(uint32_t tile, const TileMark& mark) {
  return map_->mark(tile, mark);
}

Status FillingFile::add_digest(uint32_t tile, const Sha256Digest& digest) {
  return map_->add_digest(tile, digest);
}

Status FillingFile::unmark(uint32_t tile) {
  return map_->unmark(tile);
}

uint32_t FillingFile::marked_count() const {
  return map_->marked_count();
}

bool FillingFile::is_complete() const {
  return map_->is_complete();
}

Status FillingFile::set_complete() {
  return TileMap::set_complete(env_, map_fd_.get(), true);
}

Result<UniqueFd> FillingFile::open_for_readers() const {
  QCACHE_TRY_ASSIGN(UniqueFd fd, env_.open(fmt::format("/proc/self/fd/{}", data_.get()), O_RDONLY));
  QCACHE_TRY_ASSIGN(const bool leased, try_lease(env_, fd.get()));
  if (!leased) {
    return fail(ErrorKind::kBusy, fmt::format("{} is just being removed", directory_.filling_path(key_.file)));
  }
  return fd;
}

bool FillingFile::lock_tile(uint32_t tile, std::chrono::milliseconds patience) {
  Backoff backoff(env_, patience);
  for (;;) {
    const auto locked = env_.try_lock_byte(map_fd_.get(), tile, LockKind::kExclusive);
    if (!locked.has_value()) {
      return false;  // a filesystem without such locks: as if another process had it
    }
    if (*locked || !backoff.pause()) {
      return *locked;
    }
  }
}

void FillingFile::unlock_tile(uint32_t tile) {
  (void)env_.unlock_byte(map_fd_.get(), tile);
}

bool FillingFile::try_lock_seal() {
  return env_.try_lock_byte(map_fd_.get(), kSealByte, LockKind::kExclusive).value_or(true);
}

void FillingFile::unlock_seal() {
  (void)env_.unlock_byte(map_fd_.get(), kSealByte);
}

Result<bool> FillingFile::names_lead_here() const {
  QCACHE_TRY_ASSIGN(const bool data, leads_to(env_, directory_.filling_path(key_.file), data_.get()));
  if (!data) {
    return false;
  }
  return leads_to(env_, directory_.map_path(key_.file), map_fd_.get());
}

}  // namespace qcache

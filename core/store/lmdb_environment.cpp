#include "core/store/lmdb_environment.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <mutex>
#include <utility>

#include "core/base/env.h"
#include "core/store/backoff.h"
#include "core/store/cache_directory.h"
#include "core/store/catalog_examination.h"
#include "core/store/named_file.h"

namespace qcache {
namespace {

// Database "meta", key "schema": decimal text. Raised when an older build must not use the catalog any more.
// 1: with LMDB's own locks, which know nothing of ours. 2: with CatalogLocks.
constexpr std::string_view kSchema = "2";
constexpr std::string_view kSchemaWithLmdbLocks = "1";
constexpr std::string_view kSchemaKey = "schema";

// Our own locks, on a file whose name we choose, synced as write_once() tells.
constexpr unsigned kFlags = MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOTLS | MDB_NOMETASYNC;
constexpr uint64_t kLeastMapBytes = 1 << 20;

// A transaction; aborted unless committed. One thread.
class Txn {
 public:
  Txn() = default;
  ~Txn() {
    if (txn_ != nullptr) {
      mdb_txn_abort(txn_);
    }
  }
  Txn(const Txn&) = delete;
  Txn& operator=(const Txn&) = delete;

  [[nodiscard]] int begin(MDB_env* env, unsigned flags) { return mdb_txn_begin(env, nullptr, flags, &txn_); }
  // Whatever comes of it, LMDB has freed the handle, so it must be forgotten before the call.
  [[nodiscard]] int commit() { return mdb_txn_commit(std::exchange(txn_, nullptr)); }
  [[nodiscard]] MDB_txn* get() const { return txn_; }

 private:
  MDB_txn* txn_ = nullptr;
};

// Gives a lock back at the end of a scope, or before.
template <typename Release>
class Held {
 public:
  explicit Held(Release release) : release_(std::move(release)) {}
  ~Held() { end(); }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;

  void end() {
    if (std::exchange(held_, false)) {
      release_();
    }
  }

 private:
  const Release release_;
  bool held_ = true;
};

// The files do not hold what LMDB once wrote.
bool is_damage(int rc) {
  return rc == MDB_CORRUPTED || rc == MDB_PAGE_NOTFOUND || rc == MDB_INVALID || rc == MDB_INCOMPATIBLE ||
         rc == MDB_PANIC;
}

Error to_error(int rc, const std::string& path, std::string_view purpose) {
  const std::string what = fmt::format("cannot {} the catalog {}", purpose, path);
  if (rc > 0) {
    // LMDB reports a write cut short by a full disk as EIO.
    const auto space = Env::posix().space(path);
    const bool full = rc == EIO && space.has_value() && space->available_bytes < kLeastMapBytes;
    return system_error(full ? ENOSPC : rc, what);
  }
  ErrorKind kind = ErrorKind::kInternal;
  if (is_damage(rc)) {
    kind = ErrorKind::kCorrupt;
  } else if (rc == MDB_VERSION_MISMATCH) {
    kind = ErrorKind::kUnsupported;
  }
  return Error{kind, 0, fmt::format("{}: {}", what, mdb_strerror(rc))};
}

// Whether somebody has LMDB's own locks on the catalog: an older build of qcache, or a tool such as mdb_stat.
bool used_with_lmdb_locks(const std::string& path) {
  const UniqueFd fd(::open((path + "/lock.mdb").c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct ::flock first {};  // whoever uses it holds the first byte, shared
  first.l_type = F_WRLCK;
  first.l_whence = SEEK_SET;
  first.l_len = 1;
  return fd.valid() && ::fcntl(fd.get(), F_OFD_GETLK, &first) == 0 && first.l_type != F_UNLCK;
}

// A data file cut short would be SIGBUS when the missing pages are read. Zero pages in their place are found out by
// LMDB, or are free pages that nobody reads: so it is lengthened, where no other process has it open.
int see_to_length(MDB_env* env, bool alone) {
  MDB_envinfo info{};
  MDB_stat stat{};
  int fd = -1;
  mdb_env_info(env, &info);
  mdb_env_stat(env, &stat);
  mdb_env_get_fd(env, &fd);
  struct ::stat file {};
  if (::fstat(fd, &file) != 0) {
    return errno;
  }
  const auto needed = static_cast<off_t>((info.me_last_pgno + 1) * stat.ms_psize);
  if (file.st_size >= needed) {
    return 0;
  }
  if (!alone) {
    return MDB_CORRUPTED;
  }
  return ::ftruncate(fd, needed) != 0 ? errno : 0;
}

Error in_use_by_older(const std::string& path) {
  return Error{
      ErrorKind::kBusy, 0,
      fmt::format("the catalog {} is in use by an older qcache (or by a tool of LMDB), whose locks are others: "
                  "end that first, then try again",
                  path)};
}

}  // namespace

LmdbEnvironment::LmdbEnvironment(std::string path, const CatalogOptions& options)
    : path_(std::move(path)), options_(options), pid_(::getpid()) {}

// Waits for our turn, and sees to it that what LMDB is about to open is fit for it.
Result<LmdbEnvironment::Place> LmdbEnvironment::take_place() {
  // Somebody may have removed it while it was in use.
  QCACHE_TRY(make_directories(Env::posix(), path_));
  for (;;) {
    // Before anything else: what is not ours is not touched.
    QCACHE_TRY_ASSIGN(const CatalogFinding format, examine_format(Env::posix(), data_file()));
    if (format.health == CatalogHealth::kForeign) {
      return fail(ErrorKind::kUnsupported, fmt::format("the catalog {} is {}, which this qcache cannot read: use the "
                                                       "qcache that made it, or another cache directory",
                                                       path_, format.reason));
    }
    QCACHE_TRY_ASSIGN(presence_, CatalogPresence::enter(path_));
    locks_.emplace(presence_->fd(), options_.write_patience);
    QCACHE_TRY_ASSIGN(const bool alone, presence_->alone());
    if (!alone && used_with_lmdb_locks(path_)) {
      return fail(in_use_by_older(path_));
    }
    if (!alone) {
      return Place::kAmongOthers;
    }
    QCACHE_TRY_ASSIGN(const CatalogFinding found, examine_catalog(Env::posix(), data_file()));
    if (found.health != CatalogHealth::kDamaged) {
      return found.health == CatalogHealth::kNone ? Place::kFirst : Place::kAlone;
    }
    spdlog::error("the catalog {} is damaged: {}", path_, found.reason);
    QCACHE_TRY(move_aside());
    locks_.reset();
    presence_.reset();
  }
}

Status LmdbEnvironment::open_files() {
  QCACHE_TRY_ASSIGN(const Place place, take_place());
  const bool alone = place != Place::kAmongOthers;
  QCACHE_TRY_ASSIGN(const bool taken, is_taken_by_others(Env::posix(), data_file()));
  if (taken && !alone) {
    QCACHE_TRY_ASSIGN([[maybe_unused]] const bool moved, move_aside_from_others());
    close_files();
    return open_files();
  }
  QCACHE_TRY_ASSIGN(const int rc, open_environment(place));
  if (is_damage(rc) && !alone) {
    QCACHE_TRY_ASSIGN(const bool moved, move_aside_from_others());
    if (moved) {
      close_files();
      return open_files();
    }
  }
  if (rc != 0) {
    Error error = to_error(rc, path_, "open");
    if (is_damage(rc)) {
      error.message += "; another process has it open: stop all qcache processes and start again";
    }
    return fail(std::move(error));
  }
  if (schema_ == kSchemaWithLmdbLocks && !alone) {
    return fail(in_use_by_older(path_));
  }
  if (schema_ == kSchemaWithLmdbLocks) {
    // Until it is raised, our turn keeps everybody else out.
    schema_pending_ = true;
    const auto raised = write_once([](MDB_txn*) { return 0; });
    Status done = !raised.has_value() ? Status(fail(raised.error()))
                  : *raised != 0      ? Status(fail(to_error(*raised, path_, "adopt")))
                                      : Status();
    if (!done.has_value() && done.error().kind != ErrorKind::kNoSpace) {
      return done;
    }
  } else if (schema_ != kSchema) {
    return fail(ErrorKind::kUnsupported,
                fmt::format("the catalog {} was written by a newer qcache (schema {}, this one knows {}): use that, or "
                            "another cache directory",
                            path_, schema_, kSchema));
  }
  ++generation_;
  if (schema_pending_) {
    return {};
  }
  if (alone) {
    (void)::unlink((path_ + "/lock.mdb").c_str());  // of an older build, which the schema keeps out now
  }
  return presence_->settle();
}

void LmdbEnvironment::close_files() {
  if (::getpid() != pid_) {
    // A forked child must not touch what its parent goes on using.
    (void)env_.release();  // NOLINT(bugprone-unused-return-value)
  }
  env_.reset();
  locks_.reset();
  presence_.reset();
}

// On failure there may be an environment that has to be closed.
Result<int> LmdbEnvironment::open_environment(Place place) {
  schema_pending_ = false;
  least_bytes_ = 0;
  look_at_ns_ = 0;
  int rc = place == Place::kFirst ? begin_anew() : 0;
  if (rc == 0) {
    rc = map_file(data_file());
  }
  if (rc == 0) {
    rc = see_to_length(env_.get(), place != Place::kAmongOthers);
  }
  if (rc == 0) {
    QCACHE_TRY_ASSIGN(rc, read_once([&](MDB_txn* txn) { return find_databases(txn, /*create_quality=*/false); }));
  }
  if (rc == MDB_NOTFOUND) {  // an older build knew no quality figures
    QCACHE_TRY_ASSIGN(rc, write_once([&](MDB_txn* txn) { return find_databases(txn, /*create_quality=*/true); }));
  }
  return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
}

// The file gets its name when it holds all that a catalog has, so that pages without databases are damage and never a
// beginning. REQUIRES: it is our turn, and we are alone.
int LmdbEnvironment::begin_anew() {
  const std::string file = data_file() + ".new";
  const int rc = [&] {
    if (::unlink(file.c_str()) != 0 && errno != ENOENT) {
      return errno;
    }
    if (const int made = map_file(file); made != 0) {
      return made;
    }
    Txn txn;
    int done = txn.begin(env_.get(), 0);
    for (const auto& [name, database] : databases()) {
      done = done == 0 ? mdb_dbi_open(txn.get(), name, MDB_CREATE, database) : done;
    }
    done = done == 0 ? put_schema(txn.get()) : done;
    done = done == 0 ? txn.commit() : done;
    done = done == 0 ? mdb_env_sync(env_.get(), 1) : done;
    return done == 0 && ::rename(file.c_str(), data_file().c_str()) != 0 ? errno : done;
  }();
  env_.reset();
  if (rc != 0) {
    (void)::unlink(file.c_str());
    return rc;
  }
  const Status synced = Env::posix().sync_directory(path_);
  return synced.has_value() ? 0 : synced.error().sys_errno;
}

int LmdbEnvironment::map_file(const std::string& file) {
  for (uint64_t map_bytes = std::max(options_.map_bytes, kLeastMapBytes);; map_bytes /= 2) {
    MDB_env* env = nullptr;
    if (const int rc = mdb_env_create(&env); rc != 0) {
      return rc;
    }
    env_.reset(env);
    mdb_env_set_maxdbs(env, static_cast<MDB_dbi>(databases().size()));
    mdb_env_set_mapsize(env, map_bytes);
    const int rc = mdb_env_open(env, file.c_str(), kFlags, 0600);
    // With little address space (ulimit -v) less will do: it can grow later.
    if (rc != ENOMEM || map_bytes / 2 < kLeastMapBytes) {
      return rc;
    }
  }
}

std::array<std::pair<const char*, MDB_dbi*>, 4> LmdbEnvironment::databases() {
  return {{{"meta", &meta_}, {"records", &records_}, {"tiles", &tiles_}, {"quality", &quality_}}};
}

// MDB_NOTFOUND where one is missing. What is found stays open when the transaction is committed.
int LmdbEnvironment::find_databases(MDB_txn* txn, bool create_quality) {
  for (const auto& [name, database] : databases()) {
    const unsigned create = create_quality && database == &quality_ ? MDB_CREATE : 0;
    if (const int rc = mdb_dbi_open(txn, name, create, database); rc != 0) {
      return rc;
    }
  }
  MDB_val key = view_of(kSchemaKey);
  MDB_val value{};
  if (const int rc = mdb_get(txn, meta_, &key, &value); rc != 0) {
    return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
  }
  schema_ = text_of(value);
  return 0;
}

int LmdbEnvironment::put_schema(MDB_txn* txn) const {
  MDB_val key = view_of(kSchemaKey);
  MDB_val value = view_of(kSchema);
  return mdb_put(txn, meta_, &key, &value, 0);
}

// REQUIRES: it is our turn, and we are alone.
Status LmdbEnvironment::move_aside() {
  Env& env = Env::posix();
  const std::string aside = fmt::format("{}.corrupt-{}", path_, env.now_ns() / 1'000'000);
  QCACHE_TRY(env.rename(path_, aside));
  QCACHE_TRY(env.make_directory(path_, 0700));
  spdlog::error(
      "the catalog {} is begun anew, and the damaged one is now {}; cached files are checked, or made again, "
      "when they are read",
      path_, aside);
  return {};
}

// Others have it open, and find out that it is gone (see file_is_ours()). While it is our turn to write it is at rest,
// so that a damage is none of a moment. Whether it was moved. REQUIRES: it is our turn to open.
Result<bool> LmdbEnvironment::move_aside_from_others() {
  env_.reset();
  QCACHE_TRY(locks_->begin_write());
  const Held turn([&] { locks_->end_write(); });
  QCACHE_TRY_ASSIGN(const CatalogFinding found, examine_catalog(Env::posix(), data_file()));
  if (found.health != CatalogHealth::kDamaged && found.health != CatalogHealth::kNone) {
    return false;
  }
  spdlog::error("the catalog {} is damaged: {}", path_, found.reason.empty() ? "it is empty" : found.reason);
  QCACHE_TRY(move_aside());
  return true;
}

Status LmdbEnvironment::run(bool writes, std::string_view purpose, const Body& body) {
  if (::getpid() != pid_) {
    return fail(ErrorKind::kInternal, "the catalog was opened before a fork, and cannot be used after it");
  }
  bool reopened = false;
  for (;;) {
    Ground ground;
    QCACHE_TRY_ASSIGN(const int rc, attempt(writes, body, ground));
    if (rc == 0) {
      return {};
    }
    if (rc == MDB_MAP_FULL) {
      QCACHE_TRY(grow(ground));
    } else if (rc == MDB_MAP_RESIZED) {
      adopt_growth();
    } else if (is_damage(rc) && !reopened) {
      reopened = true;
      QCACHE_TRY(reopen(ground));
    } else {
      return fail(to_error(rc, path_, purpose));
    }
  }
}

Result<int> LmdbEnvironment::attempt(bool writes, const Body& body, Ground& ground) {
  const std::shared_lock use(gate_);
  ground.generation = generation_;
  if (env_ == nullptr) {
    return MDB_PANIC;
  }
  if (!file_is_ours(writes)) {  // before anything else: all that LMDB tells is read from the file
    return MDB_CORRUPTED;
  }
  ground.map_bytes = map_bytes();
  return writes ? write_once(body) : read_once(body);
}

Result<int> LmdbEnvironment::read_once(const Body& body) {
  Backoff backoff(Env::posix(), options_.read_patience);
  for (;;) {
    const uint64_t seen = snapshot();
    QCACHE_TRY_ASSIGN(const bool admitted, locks_->try_read(seen));
    if (!admitted) {
      // Its writer is about to let go of it, or it is just being followed by the next. Or the writer was stopped.
      if (snapshot() == seen && !backoff.pause()) {
        return fail(ErrorKind::kBusy,
                    fmt::format("another process has kept the catalog {} locked for {} ms; `fuser -v {}/users` shows "
                                "which (it may be stopped)",
                                path_, options_.read_patience.count(), path_));
      }
      continue;
    }
    const Held place([&] { locks_->end_read(seen); });
    Txn txn;
    if (const int rc = txn.begin(env_.get(), MDB_RDONLY); rc != 0) {
      return rc;
    }
    if (mdb_txn_id(txn.get()) % 2 != seen % 2) {
      continue;  // another has been committed meanwhile: we have the wrong side
    }
    const int rc = body(txn.get());
    return rc == 0 ? txn.commit() : rc;  // a commit, also of a read, keeps database handles
  }
}

Result<int> LmdbEnvironment::write_once(const Body& body) {
  QCACHE_TRY(locks_->begin_write());
  const Held turn([&] { locks_->end_write(); });
  const uint64_t next = snapshot() + 1;
  QCACHE_TRY(locks_->begin_replacing(next));
  Held side([&] { locks_->end_replacing(next); });
  {
    Txn txn;
    int rc = txn.begin(env_.get(), 0);
    if (rc == 0 && schema_pending_) {
      rc = put_schema(txn.get());
    }
    if (rc == 0) {
      rc = body(txn.get());
    }
    if (rc == 0) {
      rc = txn.commit();
    }
    if (rc != 0) {
      return rc;
    }
  }
  // LMDB has synced the pages before it named them, as it must, and leaves the naming to us: no reader needs to wait
  // for that. A next writer does: it may reuse what only the snapshot before last has.
  side.end();
  if (snapshot() == next) {
    if (const int rc = mdb_env_sync(env_.get(), 1); rc != 0) {
      return rc;
    }
  }
  if (std::exchange(schema_pending_, false)) {
    QCACHE_TRY(presence_->settle());
  }
  return 0;
}

uint64_t LmdbEnvironment::snapshot() const {
  MDB_envinfo info{};
  mdb_env_info(env_.get(), &info);
  return info.me_last_txnid;
}

size_t LmdbEnvironment::map_bytes() const {
  MDB_envinfo info{};
  mdb_env_info(env_.get(), &info);
  return info.me_mapsize;
}

// LMDB never makes its file shorter, and what reads the pages that another program has cut off is ended by a signal.
// And where somebody has moved the file, or its folder, what others write is no longer what we read: looked at before
// every write, and by readers now and then.
bool LmdbEnvironment::file_is_ours(bool writes) {
  constexpr std::chrono::milliseconds kLook{100};
  int fd = -1;
  mdb_env_get_fd(env_.get(), &fd);
  struct ::stat file {};
  if (::fstat(fd, &file) != 0 || file.st_nlink == 0 || file.st_size < least_bytes_) {
    return false;
  }
  least_bytes_ = file.st_size;
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  if (!writes && now < std::chrono::nanoseconds(look_at_ns_.load(std::memory_order_relaxed))) {
    return true;
  }
  struct ::stat named {};
  if (::lstat(data_file().c_str(), &named) != 0 || named.st_ino != file.st_ino || named.st_dev != file.st_dev) {
    return false;
  }
  look_at_ns_.store(std::chrono::nanoseconds(now + kLook).count(), std::memory_order_relaxed);
  return true;
}

Status LmdbEnvironment::grow(const Ground& seen) {
  const std::unique_lock alone(gate_);
  if (env_ == nullptr || generation_ != seen.generation || map_bytes() != seen.map_bytes) {
    return {};  // another thread was here first
  }
  if (const int rc = mdb_env_set_mapsize(env_.get(), seen.map_bytes * 2); rc != 0) {
    close_files();  // the old mapping is gone; the next transaction opens anew
    return fail(to_error(rc, path_, "enlarge"));
  }
  return {};
}

void LmdbEnvironment::adopt_growth() {
  const std::unique_lock alone(gate_);
  if (env_ != nullptr && mdb_env_set_mapsize(env_.get(), 0) != 0) {
    close_files();
  }
}

// After a failed write of its first pages LMDB refuses all work until the environment is opened again.
Status LmdbEnvironment::reopen(const Ground& seen) {
  const std::unique_lock alone(gate_);
  if (env_ != nullptr && generation_ != seen.generation) {
    return {};
  }
  close_files();
  Status opened = open_files();
  if (!opened.has_value()) {
    close_files();
  }
  return opened;
}

}  // namespace qcache

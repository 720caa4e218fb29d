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

namespace qcache {
namespace {

// Database "meta", key "schema": decimal text. Raised when an older build must not write here any more.
constexpr unsigned kSchema = 1;
constexpr std::string_view kSchemaKey = "schema";

constexpr uint64_t kReaderSlotBytes = 64;
constexpr uint64_t kLeastMapBytes = 1 << 20;
constexpr std::chrono::milliseconds kTransientPatience{200};

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
  } else if (rc == MDB_READERS_FULL) {
    kind = ErrorKind::kBusy;
  } else if (rc == MDB_VERSION_MISMATCH) {
    kind = ErrorKind::kUnsupported;
  }
  return Error{kind, 0, fmt::format("{}: {}", what, mdb_strerror(rc))};
}

// LMDB stores into lock.mdb through a mapping of a sparse file, which on a full disk is SIGBUS; with its blocks
// allocated it is not. REQUIRES: no process has the environment open.
int allocate_lock_file(const std::string& path, uint32_t max_readers) {
  const UniqueFd fd(::open((path + "/lock.mdb").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  // Its length is what LMDB takes the number of slots from, less some bytes for its own head.
  constexpr uint64_t kHeadBytes = 256;
  const auto size = static_cast<off_t>(kHeadBytes + max_readers * kReaderSlotBytes);
  return fd.valid() ? ::posix_fallocate(fd.get(), 0, size) : errno;
}

// A data file cut short would be SIGBUS when the missing pages are read. Zero pages in their place are found out by
// LMDB, or are free pages that nobody reads. REQUIRES: no other process has the environment open.
int lengthen_data_file(MDB_env* env) {
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
  return file.st_size < needed && ::ftruncate(fd, needed) != 0 ? errno : 0;
}

}  // namespace

LmdbEnvironment::LmdbEnvironment(std::string path, const CatalogOptions& options)
    : path_(std::move(path)), options_(options), pid_(::getpid()) {}

Status LmdbEnvironment::open_files() {
  QCACHE_TRY_ASSIGN(presence_, CatalogPresence::enter(path_));
  QCACHE_TRY_ASSIGN(bool alone, presence_->alone());
  int rc = open_environment(alone);
  if (is_damage(rc) && alone) {
    env_.reset();
    QCACHE_TRY(move_aside());
    QCACHE_TRY_ASSIGN(presence_, CatalogPresence::enter(path_));
    QCACHE_TRY_ASSIGN(alone, presence_->alone());
    rc = open_environment(alone);
  }
  if (rc == 0 && schema_ != std::to_string(kSchema)) {
    env_.reset();
    return fail(ErrorKind::kUnsupported,
                fmt::format("the catalog {} was written by a newer qcache (schema {}, this one knows {}): use that, or "
                            "another cache directory",
                            path_, schema_, kSchema));
  }
  if (rc != 0) {
    env_.reset();
    Error error = to_error(rc, path_, "open");
    if (is_damage(rc)) {
      error.message += "; another process has it open: stop all qcache processes and start again";
    }
    return fail(std::move(error));
  }
  ++generation_;
  return presence_->settle();
}

void LmdbEnvironment::close_files() {
  if (::getpid() != pid_) {
    // A forked child must not touch what its parent goes on using: its locks are the parent's, too.
    (void)env_.release();  // NOLINT(bugprone-unused-return-value)
    presence_.reset();
    return;
  }
  if (env_ != nullptr) {
    presence_->begin_leaving();
    env_.reset();
  }
  presence_.reset();
}

// Opens the environment at our turn. On failure there may be one that has to be closed.
int LmdbEnvironment::open_environment(bool alone) {
  if (alone) {
    if (const int rc = allocate_lock_file(path_, options_.max_readers); rc != 0) {
      return rc;
    }
  }
  Backoff backoff(kTransientPatience);
  for (uint64_t map_bytes = std::max(options_.map_bytes, kLeastMapBytes);;) {
    MDB_env* env = nullptr;
    if (const int rc = mdb_env_create(&env); rc != 0) {
      return rc;
    }
    env_.reset(env);
    mdb_env_set_maxdbs(env, 4);
    mdb_env_set_maxreaders(env, options_.max_readers);
    mdb_env_set_mapsize(env, map_bytes);
    const int rc = mdb_env_open(env, path_.c_str(), MDB_NOTLS, 0600);
    if (rc == 0) {
      break;
    }
    if (rc == ENOMEM && map_bytes / 2 >= kLeastMapBytes) {
      map_bytes /= 2;  // little address space (ulimit -v): it can grow later
      continue;
    }
    // Tools such as mdb_stat do not wait for their turn.
    if ((rc != EAGAIN && rc != EBUSY && rc != EINVAL) || !backoff.pause()) {
      return rc;
    }
  }
  drop_dead_readers();
  if (alone) {
    if (const int rc = lengthen_data_file(env_.get()); rc != 0) {
      return rc;
    }
  }
  return open_databases();
}

int LmdbEnvironment::open_databases() {
  for (const unsigned flags : {unsigned{MDB_RDONLY}, 0U}) {
    const bool creating = flags == 0;
    const unsigned create = creating ? MDB_CREATE : 0;
    Txn txn;
    int rc = txn.begin(env_.get(), flags);
    if (rc == MDB_MAP_RESIZED && (rc = mdb_env_set_mapsize(env_.get(), 0)) == 0) {
      rc = txn.begin(env_.get(), flags);
    }
    for (const auto& [name, database] :
         {std::pair{"meta", &meta_}, {"records", &records_}, {"tiles", &tiles_}, {"quality", &quality_}}) {
      if (rc == 0) {
        rc = mdb_dbi_open(txn.get(), name, create, database);
      }
    }
    if (rc == 0 && creating) {
      MDB_val key = view_of(kSchemaKey);
      const std::string schema = std::to_string(kSchema);
      MDB_val value = view_of(schema);
      rc = mdb_put(txn.get(), meta_, &key, &value, MDB_NOOVERWRITE);
      rc = rc == MDB_KEYEXIST ? 0 : rc;  // another process was faster
    }
    if (rc == 0) {
      rc = check_databases(txn.get());
    }
    if (rc == 0) {
      return txn.commit();  // also of a read: only this keeps the database handles
    }
    // A writer needs no reader's slot.
    if (rc != MDB_NOTFOUND && rc != MDB_READERS_FULL) {
      return rc;
    }
  }
  return MDB_CORRUPTED;  // not even creating made them appear
}

// Reads the schema, and every page of the trees once, so that damage shows now and not amid serving.
int LmdbEnvironment::check_databases(MDB_txn* txn) {
  MDB_val key = view_of(kSchemaKey);
  MDB_val value{};
  if (const int rc = mdb_get(txn, meta_, &key, &value); rc != 0) {
    return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
  }
  schema_ = text_of(value);
  for (const MDB_dbi database : {records_, tiles_, quality_}) {
    Cursor cursor;
    int rc = cursor.open(txn, database);
    while (rc == 0) {
      rc = cursor.next(key, value);
    }
    if (rc != MDB_NOTFOUND) {
      return rc;
    }
  }
  return 0;
}

// REQUIRES: it is our turn, and we are alone.
Status LmdbEnvironment::move_aside() {
  Env& env = Env::posix();
  const std::string aside = fmt::format("{}.corrupt-{}", path_, env.now_ns() / 1'000'000);
  QCACHE_TRY(env.rename(path_, aside));
  QCACHE_TRY(env.make_directory(path_, 0700));
  spdlog::error("the catalog {} was damaged and is now {}; cached files are made again when they are read", path_,
                aside);
  return {};
}

Status LmdbEnvironment::run(unsigned flags, std::string_view purpose, const Body& body) {
  if (::getpid() != pid_) {
    return fail(ErrorKind::kInternal, "the catalog was opened before a fork, and cannot be used after it");
  }
  bool crowded = false;
  bool reopened = false;
  for (;;) {
    Ground ground;
    const int rc = attempt(flags, body, ground);
    if (rc == 0) {
      return {};
    }
    if (rc == MDB_MAP_FULL) {
      QCACHE_TRY(grow(ground));
    } else if (rc == MDB_MAP_RESIZED) {
      adopt_growth();
    } else if (rc == MDB_READERS_FULL) {
      const std::shared_lock use(gate_);
      drop_dead_readers();
      // Where the living alone fill the table, a writer's turn will do: it needs no slot.
      flags = std::exchange(crowded, true) ? 0 : flags;
    } else if (is_damage(rc) && !reopened) {
      reopened = true;
      QCACHE_TRY(reopen(ground));
    } else {
      return fail(to_error(rc, path_, purpose));
    }
  }
}

int LmdbEnvironment::attempt(unsigned flags, const Body& body, Ground& ground) {
  const std::shared_lock use(gate_);
  ground.generation = generation_;
  if (env_ == nullptr) {
    return MDB_PANIC;
  }
  MDB_envinfo info{};
  mdb_env_info(env_.get(), &info);
  ground.map_bytes = info.me_mapsize;
  Txn txn;
  if (const int rc = txn.begin(env_.get(), flags); rc != 0) {
    return rc;
  }
  if (const int rc = body(txn.get()); rc != 0) {
    return rc;
  }
  return (flags & MDB_RDONLY) != 0 ? 0 : txn.commit();
}

Status LmdbEnvironment::grow(const Ground& seen) {
  const std::unique_lock alone(gate_);
  if (env_ == nullptr) {
    return {};
  }
  MDB_envinfo info{};
  mdb_env_info(env_.get(), &info);
  if (generation_ != seen.generation || info.me_mapsize != seen.map_bytes) {
    return {};  // another thread was here first
  }
  if (const int rc = mdb_env_set_mapsize(env_.get(), info.me_mapsize * 2); rc != 0) {
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

void LmdbEnvironment::drop_dead_readers() {
  if (env_ != nullptr) {
    int dead = 0;
    mdb_reader_check(env_.get(), &dead);
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

#include "core/store/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>
#include <chrono>

#include "core/store/backoff.h"
#include "core/store/cache_directory.h"
#include "core/store/named_file.h"

namespace qcache {
namespace {

constexpr std::chrono::milliseconds kLeasePatience{50};
constexpr std::chrono::milliseconds kDirectoryPatience{30'000};

Result<bool> try_flock(int fd, int operation) {
  while (::flock(fd, operation | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) {
      return false;
    }
    if (errno != EINTR) {
      return fail(system_error(errno, "cannot lock a cached file"));
    }
  }
  return true;
}

// Closing alone would not do while a child process that is just being started has the descriptor too.
void unlock_file(const UniqueFd& fd) {
  if (fd.valid()) {
    ::flock(fd.get(), LOCK_UN);
  }
}

}  // namespace

Result<bool> try_lease(int fd) {
  Backoff backoff(kLeasePatience);
  for (;;) {
    QCACHE_TRY_ASSIGN(const bool taken, try_flock(fd, LOCK_SH));
    if (taken || !backoff.pause()) {
      return taken;
    }
  }
}

Result<std::optional<RemovalLock>> RemovalLock::try_acquire(Env& env, const std::string& path) {
  auto fd = open_named(env, path, O_RDONLY);
  if (!fd.has_value() && fd.error().kind == ErrorKind::kNotFound) {
    return RemovalLock(UniqueFd());
  }
  if (!fd.has_value() && fd.error().kind == ErrorKind::kPermission) {
    return std::optional<RemovalLock>();
  }
  if (!fd.has_value()) {
    return fail(std::move(fd).error());
  }
  QCACHE_TRY_ASSIGN(const bool taken, try_flock(fd->get(), LOCK_EX));
  return taken ? std::optional(RemovalLock(std::move(*fd))) : std::nullopt;
}

RemovalLock::~RemovalLock() {
  unlock_file(fd_);
}

Result<DirectoryLock> DirectoryLock::acquire(Env& env, const std::string& lock_path) {
  Backoff backoff(kDirectoryPatience);
  for (;;) {
    auto fd = open_named(env, lock_path, O_RDWR | O_CREAT, 0600);
    if (!fd.has_value() && fd.error().kind == ErrorKind::kNotFound) {
      // Users may remove a cache directory at any time, also one that is in use.
      if (Status made = make_directories(env, lock_path.substr(0, lock_path.find_last_of('/'))); !made.has_value()) {
        return fail(cache_unusable(std::move(made).error()));
      }
      fd = open_named(env, lock_path, O_RDWR | O_CREAT, 0600);
    }
    if (!fd.has_value()) {
      return fail(cache_unusable(std::move(fd).error()));
    }
    QCACHE_TRY_ASSIGN(const bool taken, try_flock(fd->get(), LOCK_EX));
    if (taken) {
      DirectoryLock lock(std::move(*fd));
      // A lock on a file that was removed meanwhile guards nothing.
      QCACHE_TRY_ASSIGN(const bool current, leads_to(env, lock_path, lock.fd_.get()));
      if (current) {
        return lock;
      }
    }
    if (!backoff.pause()) {
      return fail(ErrorKind::kBusy, "another process has kept " + lock_path +
                                        " locked for 30 s; `fuser -v` on that file shows which (it may be stopped)");
    }
  }
}

DirectoryLock::~DirectoryLock() {
  unlock_file(fd_);
}

Result<bool> try_lock_byte(int fd, uint64_t offset, ByteLock kind) {
  struct ::flock range {};
  range.l_type = kind == ByteLock::kShared ? F_RDLCK : F_WRLCK;
  range.l_whence = SEEK_SET;
  range.l_start = static_cast<off_t>(offset);
  range.l_len = 1;
  while (::fcntl(fd, F_OFD_SETLK, &range) != 0) {
    if (errno == EAGAIN || errno == EACCES) {
      return false;
    }
    if (errno != EINTR) {
      return fail(system_error(errno, "cannot lock a byte of a cached file"));
    }
  }
  return true;
}

void unlock_byte(int fd, uint64_t offset) {
  struct ::flock range {};
  range.l_type = F_UNLCK;
  range.l_whence = SEEK_SET;
  range.l_start = static_cast<off_t>(offset);
  range.l_len = 1;
  ::fcntl(fd, F_OFD_SETLK, &range);
}

}  // namespace qcache

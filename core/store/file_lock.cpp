#include "core/store/file_lock.h"

#include <fcntl.h>

#include <chrono>

#include "core/store/backoff.h"
#include "core/store/cache_directory.h"
#include "core/store/named_file.h"

namespace qcache {
namespace {

constexpr std::chrono::milliseconds kLeasePatience{50};
constexpr std::chrono::milliseconds kDirectoryPatience{30'000};

}  // namespace

Result<bool> try_lease(Env& env, int fd) {
  Backoff backoff(env, kLeasePatience);
  for (;;) {
    QCACHE_TRY_ASSIGN(const bool taken, env.try_lock(fd, LockKind::kShared));
    if (taken || !backoff.pause()) {
      return taken;
    }
  }
}

Result<std::optional<RemovalLock>> RemovalLock::try_acquire(Env& env, const std::string& path) {
  auto fd = open_named(env, path, O_RDONLY);
  if (!fd.has_value() && fd.error().kind == ErrorKind::kNotFound) {
    return RemovalLock(env, UniqueFd());
  }
  if (!fd.has_value() && fd.error().kind == ErrorKind::kPermission) {
    return std::optional<RemovalLock>();
  }
  if (!fd.has_value()) {
    return fail(std::move(fd).error());
  }
  QCACHE_TRY_ASSIGN(const bool taken, env.try_lock(fd->get(), LockKind::kExclusive));
  return taken ? std::optional(RemovalLock(env, std::move(*fd))) : std::nullopt;
}

RemovalLock::~RemovalLock() {
  if (fd_.valid()) {
    (void)env_.unlock(fd_.get());
  }
}

Result<DirectoryLock> DirectoryLock::acquire(Env& env, const std::string& lock_path) {
  Backoff backoff(env, kDirectoryPatience);
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
    QCACHE_TRY_ASSIGN(const bool taken, env.try_lock(fd->get(), LockKind::kExclusive));
    if (taken) {
      DirectoryLock lock(env, std::move(*fd));
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
  if (fd_.valid()) {
    (void)env_.unlock(fd_.get());
  }
}

}  // namespace qcache

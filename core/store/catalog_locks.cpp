#include "core/store/catalog_locks.h"

#include <fmt/format.h>

#include "core/base/env.h"
#include "core/store/backoff.h"

namespace qcache {
namespace {

using Clock = std::chrono::steady_clock;

// Of the file `users`; CatalogPresence has those before.
constexpr uint64_t kNextWriter = 2;  // held while waiting to write, so that writers take turns
constexpr uint64_t kWriter = 3;
constexpr uint64_t kSides = 4;  // and 5

}  // namespace

Error CatalogLocks::busy() const {
  return Error{
      ErrorKind::kBusy, 0,
      fmt::format("another process has kept the catalog locked for {} ms; `fuser -v` on the file `users` in its "
                  "folder shows which (it may be stopped)",
                  patience_.count())};
}

Result<bool> CatalogLocks::try_read(uint64_t snapshot) {
  const MutexLock lock(mutex_);
  Side& side = sides_.at(snapshot % 2);
  if (side.replacing) {
    return false;
  }
  if (side.readers == 0) {
    QCACHE_TRY_ASSIGN(const bool taken, Env::posix().try_lock_byte(fd_, kSides + snapshot % 2, LockKind::kShared));
    if (!taken) {
      return false;
    }
  }
  ++side.readers;
  return true;
}

void CatalogLocks::end_read(uint64_t snapshot) {
  const MutexLock lock(mutex_);
  Side& side = sides_.at(snapshot % 2);
  if (--side.readers == 0) {
    (void)Env::posix().unlock_byte(fd_, kSides + snapshot % 2);
    if (side.replacing) {
      changed_.notify_all();
    }
  }
}

Status CatalogLocks::wait_for_byte(uint64_t byte, Clock::time_point deadline) const {
  Backoff backoff(Env::posix(), deadline - Clock::now());
  for (;;) {
    QCACHE_TRY_ASSIGN(const bool taken, Env::posix().try_lock_byte(fd_, byte, LockKind::kExclusive));
    if (taken) {
      return {};
    }
    if (!backoff.pause()) {
      return fail(busy());
    }
  }
}

Status CatalogLocks::begin_write() {
  const auto deadline = Clock::now() + patience_;
  {
    const MutexLock lock(mutex_);
    while (writing_) {
      if (Clock::now() >= deadline) {
        return fail(busy());
      }
      (void)changed_.wait_for(mutex_, deadline - Clock::now());
    }
    writing_ = true;
  }
  Status begun = wait_for_byte(kNextWriter, deadline);
  if (begun.has_value()) {
    begun = wait_for_byte(kWriter, deadline);
    (void)Env::posix().unlock_byte(fd_, kNextWriter);
  }
  if (!begun.has_value()) {
    end_write();
  }
  return begun;
}

void CatalogLocks::end_write() {
  (void)Env::posix().unlock_byte(fd_, kWriter);
  const MutexLock lock(mutex_);
  writing_ = false;
  changed_.notify_all();
}

Status CatalogLocks::begin_replacing(uint64_t snapshot) {
  const auto deadline = Clock::now() + patience_;
  Status begun;
  {
    const MutexLock lock(mutex_);
    Side& side = sides_.at(snapshot % 2);
    side.replacing = true;
    while (begun.has_value() && side.readers > 0) {
      if (Clock::now() >= deadline) {
        begun = fail(busy());
      } else {
        (void)changed_.wait_for(mutex_, deadline - Clock::now());
      }
    }
  }
  if (begun.has_value()) {
    begun = wait_for_byte(kSides + snapshot % 2, deadline);
  }
  if (!begun.has_value()) {
    const MutexLock lock(mutex_);
    sides_.at(snapshot % 2).replacing = false;  // the byte is not ours, or is that of our readers
  }
  return begun;
}

void CatalogLocks::end_replacing(uint64_t snapshot) {
  const MutexLock lock(mutex_);
  (void)Env::posix().unlock_byte(fd_, kSides + snapshot % 2);
  sides_.at(snapshot % 2).replacing = false;
}

}  // namespace qcache

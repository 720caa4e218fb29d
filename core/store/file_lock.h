#pragma once

#include <optional>
#include <string>
#include <utility>

#include "core/base/env.h"
#include "core/base/result.h"
#include "core/base/unique_fd.h"

namespace qcache {

/// Advisory locks between processes that share a cache directory. All of them vanish with the process that
/// holds them, so none can be left behind.
///
/// - A *lease* is a shared flock(2) on an open data file, sealed or filling: it says "somebody reads this". Because
///   the kernel keeps the open file of a passthrough handle, the lease outlives a killed daemon for as long as its
///   readers.
/// - The directory lock is an exclusive flock on `filling/lock`: it is held while names in the cache directory
///   change (create, seal, demote, remove) and never while bytes are made or hashed.
/// - A tile lock is an open-file-description lock on one byte of a map file (FillingFile::lock_tile()).

/// Takes a lease on an open file; false where somebody holds it exclusively (it is being removed). Tries for 50 ms,
/// because whoever asks whether a file is in use holds it exclusively for a moment.
Result<bool> try_lease(Env& env, int fd);
/// An exclusive hold on a file that is about to be removed, or that somebody asks about: nobody has a lease on it, and
/// nobody gets one until this goes. Keep it for moments only.
class RemovalLock {
 public:
  /// Nothing where anybody holds a lease on the file, or where we may not open it and so cannot know. An absent file is
  /// held at once.
  static Result<std::optional<RemovalLock>> try_acquire(Env& env, const std::string& path);
  ~RemovalLock();
  RemovalLock(RemovalLock&&) noexcept = default;
  RemovalLock& operator=(RemovalLock&&) = delete;
  RemovalLock(const RemovalLock&) = delete;
  RemovalLock& operator=(const RemovalLock&) = delete;

 private:
  RemovalLock(Env& env, UniqueFd fd) : env_(env), fd_(std::move(fd)) {}
  Env& env_;
  UniqueFd fd_;
};

/// Holds the directory lock. Never take it while holding a qcache Mutex.
class DirectoryLock {
 public:
  /// Waits for the lock; kBusy where another process has kept it for 30 s, as a stopped one would.
  static Result<DirectoryLock> acquire(Env& env, const std::string& lock_path);
  ~DirectoryLock();
  DirectoryLock(DirectoryLock&&) noexcept = default;
  DirectoryLock& operator=(DirectoryLock&&) = delete;
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

 private:
  DirectoryLock(Env& env, UniqueFd fd) : env_(env), fd_(std::move(fd)) {}
  Env& env_;
  UniqueFd fd_;
};

}  // namespace qcache

#pragma once

#include <array>
#include <chrono>
#include <cstdint>

#include "core/base/mutex.h"
#include "core/base/result.h"

namespace qcache {

/// What LMDB asks of those who run it without its own locks (MDB_NOLOCK), between the processes and threads that have
/// one catalog open. Its own lock file is no choice: LMDB stores into it through a mapping, which on a full disk that
/// copies what it writes (btrfs, a thin volume, a snapshot) is SIGBUS, and its table of readers keeps those that were
/// killed.
///
/// LMDB keeps the last two snapshots: the one with number N in its first page where N is even, in the second where N is
/// odd. A transaction of a reader takes the newest. The writer of N+1 may reuse pages that no snapshot since N-1 has
/// (mdb_find_oldest(), which without a table of readers says N, and mdb_page_alloc(), which wants pages that were freed
/// before that), and its commit replaces the page of N-1. So
/// - there is one writer at a time, and
/// - a reader of N holds *side* N modulo 2, shared, from before its transaction begins; the writer of N+1 holds side
///   N+1 modulo 2 alone, from before its transaction begins until after its commit.
/// Hence no reader of N-1 or before is left when the writer of N+1 begins, and nobody reads a first or second page
/// while it is written. Readers of N are never in the way of the writer of N+1, nor it in theirs, however many they are
/// and however long it takes: a reader is refused, for a moment, only where it has seen N+1 before the writer let go of
/// that side.
///
/// The locks are open-file-description locks on bytes of one file, and vanish with their process; the threads of this
/// one share them, and count. Thread-safe. What waits ends with kBusy after `patience`: another
/// process may be stopped.
class CatalogLocks {
 public:
  /// `fd` stays open as long as this lives.
  CatalogLocks(int fd, std::chrono::milliseconds patience) : fd_(fd), patience_(patience) {}
  ~CatalogLocks() = default;
  CatalogLocks(const CatalogLocks&) = delete;
  CatalogLocks& operator=(const CatalogLocks&) = delete;

  /// False where the writer of such a snapshot has it.
  Result<bool> try_read(uint64_t snapshot) QCACHE_EXCLUDES(mutex_);
  void end_read(uint64_t snapshot) QCACHE_EXCLUDES(mutex_);

  /// Waits to be the only writer.
  Status begin_write() QCACHE_EXCLUDES(mutex_);
  void end_write() QCACHE_EXCLUDES(mutex_);
  /// For the only writer, with the number of the snapshot that it will commit: waits for readers two snapshots behind.
  Status begin_replacing(uint64_t snapshot) QCACHE_EXCLUDES(mutex_);
  void end_replacing(uint64_t snapshot) QCACHE_EXCLUDES(mutex_);

 private:
  struct Side {
    uint32_t readers = 0;    ///< threads of this process
    bool replacing = false;  ///< a thread of this process has it, or waits to
  };
  [[nodiscard]] Status wait_for_byte(uint64_t byte, std::chrono::steady_clock::time_point deadline) const;
  [[nodiscard]] Error busy() const;

  const int fd_;
  const std::chrono::milliseconds patience_;
  Mutex mutex_;
  CondVar changed_;
  std::array<Side, 2> sides_ QCACHE_GUARDED_BY(mutex_);
  bool writing_ QCACHE_GUARDED_BY(mutex_) = false;
};

}  // namespace qcache

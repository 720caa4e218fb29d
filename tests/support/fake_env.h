#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/env.h"
#include "core/base/mutex.h"
#include "tests/support/fault_rules.h"

namespace qcache {

/// The kinds of call an Env has, for FakeEnv. Both forms of stat are kStat.
enum class EnvCall {
  kOpen,
  kReadAt,
  kWriteAt,
  kTruncate,
  kAllocate,
  kPunchHole,
  kSync,
  kSyncDirectory,
  kStartWriteback,
  kAdvise,
  kChangeMode,
  kTouch,
  kRename,
  kRemove,
  kMakeDirectory,
  kStat,
  kList,
  kRealPath,
  kPathOf,
  kSpace,
  kLock,
  kUnlock,
  kLockByte,
  kUnlockByte,
  kSleep,  ///< never fails
};

/// Forwards every call to another Env (the real one) until told otherwise:
///
///   FakeEnv env;
///   env.fail(EnvCall::kSync, 2, EIO);                       // the second sync from now fails, once
///   env.fail_all(EnvCall::kWriteAt, ENOSPC, "filling/");    // every write to such a path, until heal()
///   env.before(EnvCall::kReadAt, 1, [&] { rewrite(); });    // something happens just before the next read
///   env.at("tile written", [&] { ::_exit(1); });            // and at each moment of that name, until heal()
///   env.set_time(1'000'000'000);                            // the clock stands still at one second
///
/// A write_at that fails has written the first half of its bytes, as on a disk that fills up; no other
/// failing call has any effect. Safe for concurrent use; hooks run in the calling thread, without a lock.
class FakeEnv final : public Env {
 public:
  explicit FakeEnv(Env& base = Env::posix()) : base_(base) {}

  /// As FaultRules tells. A call's subject is its path; for descriptors, and names in /proc/self/fd, the path behind;
  /// for rename the old one.
  void fail(EnvCall call, uint64_t nth, int sys_errno, const std::string& part = "") {
    rules_.fail(call, nth, sys_errno, part);
  }
  void fail_all(EnvCall call, int sys_errno, const std::string& part = "") { rules_.fail_all(call, sys_errno, part); }
  void before(EnvCall call, uint64_t nth, std::function<void()> hook, const std::string& part = "") {
    rules_.before(call, nth, std::move(hook), part);
  }
  /// Runs `hook` whenever the code reaches `point`.
  void at(const std::string& point, std::function<void()> hook);
  /// Forgets all faults and hooks.
  void heal();

  /// Calls of a kind so far, failed ones included.
  [[nodiscard]] uint64_t count(EnvCall call) const { return rules_.count(call); }

  /// From now on the wall clock stands still, until set again or advanced; and who sleeps does not wait, but time
  /// passes by as much.
  void set_time(int64_t ns);
  /// Time passes, on both clocks; otherwise as set_time().
  void advance(int64_t ns);
  /// From now on every filesystem has this much room.
  void set_space(SpaceInfo space);

  Result<UniqueFd> open(const std::string& path, int flags, mode_t mode) override;
  Result<size_t> read_at(int fd, std::span<std::byte> out, uint64_t offset) override;
  Status write_at(int fd, std::span<const std::byte> bytes, uint64_t offset) override;
  Status truncate(int fd, uint64_t size_bytes) override;
  Status allocate(int fd, uint64_t size_bytes) override;
  Status punch_hole(int fd, ByteRange range) override;
  Status sync(int fd) override;
  Status sync_directory(const std::string& path) override;
  Status start_writeback(int fd) override;
  Status advise(int fd, ReadPattern pattern) override;
  Status change_mode(int fd, mode_t mode) override;
  Status touch(int fd) override;
  Status rename(const std::string& from, const std::string& to) override;
  Status remove(const std::string& path) override;
  Status make_directory(const std::string& path, mode_t mode) override;
  Result<FileStat> stat(const std::string& path) override;
  Result<FileStat> stat(int fd) override;
  Result<std::vector<std::string>> list(const std::string& path) override;
  Result<std::string> real_path(const std::string& path) override;
  Result<std::string> path_of(int fd) override;
  Result<SpaceInfo> space(const std::string& path) override;
  Result<bool> try_lock(int fd, LockKind kind) override;
  Status unlock(int fd) override;
  Result<bool> try_lock_byte(int fd, uint64_t offset, LockKind kind) override;
  Status unlock_byte(int fd, uint64_t offset) override;
  int64_t now_ns() override;
  int64_t monotonic_ns() override;
  void sleep(int64_t ns) override;
  void reached(std::string_view point) override;

 private:
  /// Counts the call, runs the hooks that are due and returns the failure that is due.
  Status enter(EnvCall call, const std::string& path);
  void advance_locked(int64_t ns) QCACHE_REQUIRES(mutex_);

  Env& base_;
  FaultRules<EnvCall, int> rules_;
  mutable Mutex mutex_;
  std::map<std::string, std::function<void()>, std::less<>> points_ QCACHE_GUARDED_BY(mutex_);
  std::optional<int64_t> time_ns_ QCACHE_GUARDED_BY(mutex_);
  int64_t monotonic_ahead_ns_ QCACHE_GUARDED_BY(mutex_) = 0;
  std::optional<SpaceInfo> space_ QCACHE_GUARDED_BY(mutex_);
};

}  // namespace qcache

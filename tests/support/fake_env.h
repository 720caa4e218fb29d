#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/base/env.h"
#include "core/base/mutex.h"

namespace qcache {

/// The kinds of call an Env has, for FakeEnv. Both forms of stat are kStat.
enum class EnvCall {
  kOpen,
  kReadAt,
  kWriteAt,
  kTruncate,
  kSync,
  kSyncDirectory,
  kRename,
  kRemove,
  kMakeDirectory,
  kStat,
  kList,
  kRealPath,
  kPathOf,
  kSpace,
};

/// Forwards every call to another Env (the real one) until told otherwise:
///
///   FakeEnv env;
///   env.fail(EnvCall::kSync, 2, EIO);                       // the second sync from now fails, once
///   env.fail_all(EnvCall::kWriteAt, ENOSPC, "filling/");    // every write to such a path, until heal()
///   env.before(EnvCall::kReadAt, 1, [&] { rewrite(); });    // something happens just before the next read
///   env.set_time(1'000'000'000);                            // the clock stands still at one second
///
/// A write_at that fails has written the first half of its bytes, as on a disk that fills up; no other
/// failing call has any effect. Safe for concurrent use; hooks run in the calling thread, without a lock.
class FakeEnv final : public Env {
 public:
  explicit FakeEnv(Env& base = Env::posix()) : base_(base) {}

  /// Fails the nth call of a kind from now (1 is the next), once. Where `part` is given, only calls whose
  /// path (for descriptors, and names in /proc/self/fd: the path behind; for rename: the old one) contains it are
  /// counted.
  void fail(EnvCall call, uint64_t nth, int sys_errno, const std::string& part = "");
  /// Fails every such call until heal().
  void fail_all(EnvCall call, int sys_errno, const std::string& part = "");
  /// Runs `hook` before the nth such call from now, once; the call then goes on.
  void before(EnvCall call, uint64_t nth, std::function<void()> hook, const std::string& part = "");
  /// Forgets all faults and hooks.
  void heal();

  /// Calls of a kind so far, failed ones included.
  [[nodiscard]] uint64_t count(EnvCall call) const;

  /// From now on the wall clock stands still, until set again or advanced.
  void set_time(int64_t ns);
  /// Time passes, on both clocks.
  void advance(int64_t ns);
  /// From now on every filesystem has this much room.
  void set_space(SpaceInfo space);

  Result<UniqueFd> open(const std::string& path, int flags, mode_t mode) override;
  Result<size_t> read_at(int fd, std::span<std::byte> out, uint64_t offset) override;
  Status write_at(int fd, std::span<const std::byte> bytes, uint64_t offset) override;
  Status truncate(int fd, uint64_t size_bytes) override;
  Status sync(int fd) override;
  Status sync_directory(const std::string& path) override;
  Status rename(const std::string& from, const std::string& to) override;
  Status remove(const std::string& path) override;
  Status make_directory(const std::string& path, mode_t mode) override;
  Result<FileStat> stat(const std::string& path) override;
  Result<FileStat> stat(int fd) override;
  Result<std::vector<std::string>> list(const std::string& path) override;
  Result<std::string> real_path(const std::string& path) override;
  Result<std::string> path_of(int fd) override;
  Result<SpaceInfo> space(const std::string& path) override;
  int64_t now_ns() override;
  int64_t monotonic_ns() override;

 private:
  struct Rule {
    EnvCall call = EnvCall::kOpen;
    std::string part;
    std::optional<uint64_t> calls_left;  ///< matching calls until it acts, once; none: it acts on each
    int sys_errno = 0;                   ///< 0: run the hook instead
    std::function<void()> hook;
  };
  /// Counts the call, runs the hooks that are due and returns the failure that is due.
  Status enter(EnvCall call, const std::string& path);

  Env& base_;
  mutable Mutex mutex_;
  std::vector<Rule> rules_ QCACHE_GUARDED_BY(mutex_);
  std::map<EnvCall, uint64_t> counts_ QCACHE_GUARDED_BY(mutex_);
  std::optional<int64_t> time_ns_ QCACHE_GUARDED_BY(mutex_);
  int64_t monotonic_ahead_ns_ QCACHE_GUARDED_BY(mutex_) = 0;
  std::optional<SpaceInfo> space_ QCACHE_GUARDED_BY(mutex_);
};

}  // namespace qcache

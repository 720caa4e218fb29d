#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "core/base/mutex.h"
#include "core/base/result.h"
#include "core/base/unique_fd.h"
#include "core/engine/factor_protocol.h"

namespace qcache {

/// Child processes (qcache-worker) that compute LoRA factors with libtorch, which this process does not load.
///
/// A worker does one matrix at a time and is kept for the next; one is started whenever all are at work, so there are
/// as many as threads that call compute(). A worker that ends, crashes or is killed fails the computation it was at,
/// and nothing else: the next one starts another worker. Thread-safe.
class FactorWorkers {
 public:
  /// `programs`: where qcache-worker may be; the first that exists is started.
  explicit FactorWorkers(std::vector<std::string> programs) : programs_(std::move(programs)) {}
  ~FactorWorkers();
  FactorWorkers(const FactorWorkers&) = delete;
  FactorWorkers& operator=(const FactorWorkers&) = delete;

  /// Computes the factors of the matrix that `fill` writes (row-major), and copies them out: `a` is
  /// [rank, columns], `b` is [rows, rank], both fp32. Takes 0.1 to some seconds. Fails as `fill` does; with kIo where
  /// the worker cannot be started, ends, or has not the memory; with kInterrupted after stop().
  Status compute(const FactorRequest& request, const std::function<Status(std::span<float>)>& fill,
                 std::span<std::byte> a, std::span<std::byte> b) QCACHE_EXCLUDES(mutex_);

  /// Ends the workers that nobody has needed for a while. To be called now and then.
  void end_idle() QCACHE_EXCLUDES(mutex_);
  /// Kills all workers; what they are at fails.
  void stop() QCACHE_EXCLUDES(mutex_);

 private:
  using Clock = std::chrono::steady_clock;
  struct Worker {
    pid_t pid = -1;
    UniqueFd socket;
    Clock::time_point idle_since;
  };

  Result<Worker> take() QCACHE_EXCLUDES(mutex_);
  Result<Worker> start() QCACHE_EXCLUDES(mutex_);
  void put_back(Worker worker) QCACHE_EXCLUDES(mutex_);
  /// Waits for a worker that has ended or will, and tells how.
  std::string bury(Worker worker) QCACHE_EXCLUDES(mutex_);

  const std::vector<std::string> programs_;
  Mutex mutex_;
  bool stopping_ QCACHE_GUARDED_BY(mutex_) = false;
  std::vector<Worker> idle_ QCACHE_GUARDED_BY(mutex_);
  std::set<pid_t> at_work_ QCACHE_GUARDED_BY(mutex_);  // not waited for yet, so that a pid is no other process
};

/// Where qcache-worker is looked for: beside this program, and in libexec.
[[nodiscard]] std::vector<std::string> worker_programs();

}  // namespace qcache

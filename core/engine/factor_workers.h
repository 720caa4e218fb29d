#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "core/base/memory.h"
#include "core/base/mutex.h"
#include "core/base/result.h"
#include "core/base/unique_fd.h"
#include "core/engine/factor_protocol.h"

namespace qcache {

/// Child processes (qcache-worker) that compute LoRA factors with libtorch, which this process does not load.
///
/// A worker does one matrix at a time and is kept for the next; one is started whenever all are at work and there is
/// memory: with their matrices they take at most a quarter of what this process may use (usable_memory()), so calls
/// wait for each other where their matrices are large. A worker that ends, crashes or is killed fails the computation
/// it was at, and nothing else: the next one starts another worker. Thread-safe.
class FactorWorkers {
 public:
  /// `programs`: where qcache-worker may be; the first that exists is started. `usable`: usable_memory(), but for
  /// tests.
  explicit FactorWorkers(
      std::vector<std::string> programs,
      std::function<uint64_t(uint64_t held)> usable = [](uint64_t held) { return usable_memory(held); })
      : programs_(std::move(programs)), usable_(std::move(usable)) {}
  ~FactorWorkers();
  FactorWorkers(const FactorWorkers&) = delete;
  FactorWorkers& operator=(const FactorWorkers&) = delete;

  /// Computes the factors of the matrix that `fill` writes (row-major), and copies them out: `a` is
  /// [rank, columns], `b` is [rows, rank], both fp32. Takes 0.1 to some seconds, and as long as others before it hold
  /// the memory. Fails as `fill` does; with kIo where the worker cannot be started or ends, or the matrix alone needs
  /// more memory than all workers may have; with kInterrupted after stop().
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

  /// Waits until there is memory for one more computation that takes `bytes`, and counts it as taken.
  Status reserve(uint64_t bytes) QCACHE_EXCLUDES(mutex_);
  void release(uint64_t bytes) QCACHE_EXCLUDES(mutex_);
  Status compute_reserved(const FactorRequest& request, const std::function<Status(std::span<float>)>& fill,
                          std::span<std::byte> a, std::span<std::byte> b) QCACHE_EXCLUDES(mutex_);
  Result<Worker> take() QCACHE_EXCLUDES(mutex_);
  Result<Worker> start() QCACHE_EXCLUDES(mutex_);
  void put_back(Worker worker) QCACHE_EXCLUDES(mutex_);
  /// Waits for a worker that has ended or will, and tells how.
  std::string bury(Worker worker) QCACHE_EXCLUDES(mutex_);

  const std::vector<std::string> programs_;
  const std::function<uint64_t(uint64_t held)> usable_;
  Mutex mutex_;
  CondVar released_;
  uint64_t reserved_ QCACHE_GUARDED_BY(mutex_) = 0;  ///< bytes of the computations under way, their workers included
  bool stopping_ QCACHE_GUARDED_BY(mutex_) = false;
  std::vector<Worker> idle_ QCACHE_GUARDED_BY(mutex_);
  std::set<pid_t> at_work_ QCACHE_GUARDED_BY(mutex_);  // not waited for yet, so that a pid is no other process
};

/// Bytes that a worker and its matrix take at most.
[[nodiscard]] uint64_t factor_memory(const FactorRequest& request);

/// Where qcache-worker is looked for: beside this program, and in libexec.
[[nodiscard]] std::vector<std::string> worker_programs();

}  // namespace qcache

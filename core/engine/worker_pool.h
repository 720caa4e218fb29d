#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <thread>

#include "core/base/mutex.h"

namespace qcache {

/// How urgent a job is: all jobs of one level run before any of the next.
enum class Priority : uint8_t {
  kDemand,     ///< a reader waits for it
  kReadAhead,  ///< a reader will probably want it soon
  kFill,       ///< nobody waits
};

/// Threads that run short jobs (one tile each), the most urgent first, equals in the order they came.
///
/// As many run as were asked for, but those that wait for a filesystem which has stopped: replace_stopped() puts others
/// in their place, and jobs that read the same source are held until it goes on, so that others' go on meanwhile.
///
/// Thread-safe. Jobs must not block on other jobs. The queue is bounded by its users: at most one demand job per tile
/// somebody waits for, and a read-ahead window per open file. stop() drops what has not begun and waits for what has.
class WorkerPool {
 public:
  explicit WorkerPool(unsigned threads);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  /// `source` tells what the job reads from: a device number, or 0 for nothing that could stop.
  void submit(Priority priority, std::function<void()> job, uint64_t source = 0) QCACHE_EXCLUDES(mutex_);
  /// To be called now and then.
  void replace_stopped() QCACHE_EXCLUDES(mutex_);
  void stop() QCACHE_EXCLUDES(mutex_);
  [[nodiscard]] unsigned thread_count() const { return thread_count_; }

  /// While one lives, the calling thread waits for a source, if it is one of a pool.
  class SourceCall {
   public:
    SourceCall();
    ~SourceCall();
    SourceCall(const SourceCall&) = delete;
    SourceCall& operator=(const SourceCall&) = delete;
  };

 private:
  using Clock = std::chrono::steady_clock;
  struct Job {
    std::function<void()> run;
    uint64_t source = 0;
  };
  struct Worker {
    std::thread thread;
    std::atomic<Clock::rep> waits_since{0};  // for a source; 0: it does not
    uint64_t source = 0;                     // of its job; guarded by the pool's mutex, as is the next
    bool replaced = false;
  };

  void start_worker() QCACHE_REQUIRES(mutex_);
  void run(Worker& worker) QCACHE_EXCLUDES(mutex_);
  // The most urgent job that is not held.
  [[nodiscard]] bool take_job(Job& job) QCACHE_REQUIRES(mutex_);

  static thread_local Worker* current;

  const unsigned thread_count_;
  Mutex mutex_;
  CondVar wake_;
  std::array<std::deque<Job>, 3> queues_ QCACHE_GUARDED_BY(mutex_);
  bool stopping_ QCACHE_GUARDED_BY(mutex_) = false;
  std::list<Worker> workers_ QCACHE_GUARDED_BY(mutex_);
  std::map<uint64_t, unsigned> stopped_ QCACHE_GUARDED_BY(mutex_);  // replaced workers by source
};

}  // namespace qcache

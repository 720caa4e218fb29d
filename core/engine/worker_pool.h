#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "core/base/mutex.h"

namespace qcache {

/// How urgent a job is: all jobs of one level run before any of the next.
enum class Priority : uint8_t {
  kDemand,     ///< a reader waits for it
  kReadAhead,  ///< a reader will probably want it soon
  kFill,       ///< nobody waits
};

/// A fixed number of threads that run short jobs (one tile each), the most urgent first, equals in the order they came.
///
/// Thread-safe. Jobs must not block on other jobs. The queue is bounded by its users: at most one demand job per tile
/// somebody waits for, and a read-ahead window per open file. stop() drops what has not begun and waits for what has.
class WorkerPool {
 public:
  explicit WorkerPool(unsigned threads);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  void submit(Priority priority, std::function<void()> job) QCACHE_EXCLUDES(mutex_);
  void stop() QCACHE_EXCLUDES(mutex_);
  [[nodiscard]] unsigned thread_count() const { return thread_count_; }

 private:
  void run() QCACHE_EXCLUDES(mutex_);

  const unsigned thread_count_;
  Mutex mutex_;
  CondVar wake_;
  std::array<std::deque<std::function<void()>>, 3> queues_ QCACHE_GUARDED_BY(mutex_);
  bool stopping_ QCACHE_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace qcache

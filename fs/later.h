#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <thread>

#include "core/base/mutex.h"

namespace qcache {

/// Runs things at a time of day to come, in one thread of its own, which begins with the first: they must be quick.
/// Thread-safe. What is not due when it is stopped never runs.
class Later {
 public:
  Later() = default;
  ~Later();
  Later(const Later&) = delete;
  Later& operator=(const Later&) = delete;

  /// Waits for what runs. Also called by the destructor.
  void stop() QCACHE_EXCLUDES(mutex_);
  void after(std::chrono::nanoseconds delay, std::function<void()> what) QCACHE_EXCLUDES(mutex_);

 private:
  using Clock = std::chrono::steady_clock;
  void run() QCACHE_EXCLUDES(mutex_);

  Mutex mutex_;
  CondVar wake_;
  std::multimap<Clock::time_point, std::function<void()>> due_ QCACHE_GUARDED_BY(mutex_);
  bool stopping_ QCACHE_GUARDED_BY(mutex_) = false;
  std::thread thread_ QCACHE_GUARDED_BY(mutex_);
};

}  // namespace qcache

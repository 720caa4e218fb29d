#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

// Clang checks these with -Wthread-safety; other compilers see nothing.
#if defined(__clang__)
#define QCACHE_TSA(x) __attribute__((x))
#else
#define QCACHE_TSA(x)
#endif

#define QCACHE_CAPABILITY(x) QCACHE_TSA(capability(x))
#define QCACHE_SCOPED_CAPABILITY QCACHE_TSA(scoped_lockable)
#define QCACHE_GUARDED_BY(x) QCACHE_TSA(guarded_by(x))
#define QCACHE_REQUIRES(...) QCACHE_TSA(requires_capability(__VA_ARGS__))
#define QCACHE_EXCLUDES(...) QCACHE_TSA(locks_excluded(__VA_ARGS__))
#define QCACHE_ACQUIRE(...) QCACHE_TSA(acquire_capability(__VA_ARGS__))
#define QCACHE_RELEASE(...) QCACHE_TSA(release_capability(__VA_ARGS__))
#define QCACHE_NO_TSA QCACHE_TSA(no_thread_safety_analysis)

namespace qcache {

/// std::mutex with the annotations that let clang prove which fields it guards. The order in which locks
/// may be taken is in docs/ARCHITECTURE.md.
class QCACHE_CAPABILITY("mutex") Mutex {
 public:
  void lock() QCACHE_ACQUIRE() { mutex_.lock(); }
  void unlock() QCACHE_RELEASE() { mutex_.unlock(); }

 private:
  std::mutex mutex_;
};

/// Holds a Mutex for a scope.
class QCACHE_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) QCACHE_ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~MutexLock() QCACHE_RELEASE() { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

/// Condition variable for Mutex. Waits may wake without cause: call them in a loop on the condition.
class CondVar {
 public:
  void wait(Mutex& mutex) QCACHE_REQUIRES(mutex) { cv_.wait(mutex); }
  /// False where the time ran out first.
  bool wait_for(Mutex& mutex, std::chrono::nanoseconds timeout) QCACHE_REQUIRES(mutex) {
    return cv_.wait_for(mutex, timeout) == std::cv_status::no_timeout;
  }
  void notify_one() { cv_.notify_one(); }
  void notify_all() { cv_.notify_all(); }

 private:
  std::condition_variable_any cv_;
};

}  // namespace qcache

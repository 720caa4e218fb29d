#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "core/base/env.h"
#include "core/base/mutex.h"
#include "core/engine/error_log.h"

namespace qcache {

/// What is due by the clock: a list of tasks, each done again after its interval, in one thread of its own.
///
/// The clock is Env's monotonic one. A task that fails or throws is told to the log and done again when it is next due;
/// the others go on. Tasks are done one after another, in the order of the list. add() before start(); the rest is
/// thread-safe.
class Maintenance {
 public:
  struct Task {
    std::string name;                      ///< for the log
    std::chrono::nanoseconds interval{0};  ///< 0: at every look, which is four times a second
    bool at_once = true;                   ///< first done at the first look, else after the interval
    std::function<Status()> run;
    std::function<bool()> urgent = nullptr;  ///< asked at every look: done before it is due where this says so
  };

  Maintenance(Env& env, ErrorLog& errors) : env_(env), errors_(errors) {}
  ~Maintenance() { stop(); }
  Maintenance(const Maintenance&) = delete;
  Maintenance& operator=(const Maintenance&) = delete;

  void add(Task task);
  void start();
  /// Looks at once.
  void wake() { wake_.notify_all(); }
  /// Waits for the task that is being done. Idempotent.
  void stop() QCACHE_EXCLUDES(mutex_);

  /// One look: does all that is due. Not while it is started.
  void run_due();

 private:
  static constexpr std::chrono::milliseconds kTick{250};
  struct Entry {
    Task task;
    int64_t due_ns = 0;
  };

  void run() QCACHE_EXCLUDES(mutex_);

  Env& env_;
  ErrorLog& errors_;
  std::vector<Entry> tasks_;
  Mutex mutex_;
  CondVar wake_;
  bool stopping_ QCACHE_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace qcache

#include "core/engine/maintenance.h"

#include <utility>

#include "core/base/contain_exceptions.h"

namespace qcache {

void Maintenance::add(Task task) {
  const int64_t wait_ns = task.at_once ? 0 : task.interval.count();
  tasks_.push_back({std::move(task), env_.monotonic_ns() + wait_ns});
}

void Maintenance::start() {
  thread_ = std::thread([this] { run(); });
}

void Maintenance::stop() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) {
    thread_.join();
  }
}

void Maintenance::run_due() {
  for (Entry& entry : tasks_) {
    const int64_t now_ns = env_.monotonic_ns();
    if (now_ns < entry.due_ns && !(entry.task.urgent && entry.task.urgent())) {
      continue;
    }
    entry.due_ns = now_ns + entry.task.interval.count();
    if (const Status done = contain_exceptions("cannot do what is due", entry.task.run); !done) {
      errors_.add(entry.task.name, done.error(), env_.now_ns());
    }
  }
}

void Maintenance::run() {
  for (;;) {
    {
      const MutexLock lock(mutex_);
      if (!stopping_) {
        wake_.wait_for(mutex_, kTick);
      }
      if (stopping_) {
        return;
      }
    }
    run_due();
  }
}

}  // namespace qcache

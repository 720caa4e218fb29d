#include "fs/later.h"

#include <utility>

namespace qcache {

Later::Later() : thread_([this] { run(); }) {}

Later::~Later() {
  stop();
}

void Later::stop() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) {
    thread_.join();
  }
}

void Later::after(std::chrono::nanoseconds delay, std::function<void()> what) {
  {
    const MutexLock lock(mutex_);
    due_.emplace(Clock::now() + delay, std::move(what));
  }
  wake_.notify_all();
}

void Later::run() {
  for (;;) {
    std::function<void()> what;
    {
      const MutexLock lock(mutex_);
      while (!stopping_ && (due_.empty() || due_.begin()->first > Clock::now())) {
        if (due_.empty()) {
          wake_.wait(mutex_);
        } else {
          wake_.wait_for(mutex_, due_.begin()->first - Clock::now());
        }
      }
      if (stopping_) {
        return;
      }
      what = std::move(due_.begin()->second);
      due_.erase(due_.begin());
    }
    what();
  }
}

}  // namespace qcache

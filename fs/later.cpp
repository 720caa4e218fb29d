#include "fs/later.h"

#include <utility>

namespace qcache {

Later::~Later() {
  stop();
}

void Later::stop() {
  std::thread ending;
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    ending = std::move(thread_);
  }
  wake_.notify_all();
  if (ending.joinable()) {
    ending.join();
  }
}

void Later::after(std::chrono::nanoseconds delay, std::function<void()> what) {
  {
    const MutexLock lock(mutex_);
    if (stopping_) {
      return;
    }
    due_.emplace(Clock::now() + delay, std::move(what));
    if (!thread_.joinable()) {
      thread_ = std::thread([this] { run(); });
    }
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

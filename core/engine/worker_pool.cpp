#include "core/engine/worker_pool.h"

#include <algorithm>

namespace qcache {

WorkerPool::WorkerPool(unsigned threads) : thread_count_(std::max(1U, threads)) {
  threads_.reserve(thread_count_);
  for (unsigned i = 0; i < thread_count_; ++i) {
    threads_.emplace_back([this] { run(); });
  }
}

WorkerPool::~WorkerPool() {
  stop();
}

void WorkerPool::submit(Priority priority, std::function<void()> job) {
  {
    const MutexLock lock(mutex_);
    if (stopping_) {
      return;
    }
    queues_.at(static_cast<size_t>(priority)).push_back(std::move(job));
  }
  wake_.notify_one();
}

void WorkerPool::stop() {
  std::array<std::deque<std::function<void()>>, 3> dropped;
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    dropped.swap(queues_);  // destroyed outside the lock: a job may own the last reference to what it works on
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) {
    if (thread.joinable()) {
      thread.join();
    }
  }
}

void WorkerPool::run() {
  for (;;) {
    std::function<void()> job;
    {
      const MutexLock lock(mutex_);
      for (;;) {
        auto* const queue = std::find_if(queues_.begin(), queues_.end(), [](const auto& q) { return !q.empty(); });
        if (queue != queues_.end()) {
          job = std::move(queue->front());
          queue->pop_front();
          break;
        }
        if (stopping_) {
          return;
        }
        wake_.wait(mutex_);
      }
    }
    job();
  }
}

}  // namespace qcache

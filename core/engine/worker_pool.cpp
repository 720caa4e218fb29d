#include "core/engine/worker_pool.h"

#include <algorithm>
#include <utility>

namespace qcache {
namespace {

// A piece of a tensor that has not been read after so long: its filesystem has stopped.
constexpr std::chrono::seconds kStops{1};

}  // namespace

thread_local WorkerPool::Worker* WorkerPool::current = nullptr;

WorkerPool::SourceCall::SourceCall() {
  if (current != nullptr) {
    current->waits_since.store(Clock::now().time_since_epoch().count(), std::memory_order_relaxed);
  }
}

WorkerPool::SourceCall::~SourceCall() {
  if (current != nullptr) {
    current->waits_since.store(0, std::memory_order_relaxed);
  }
}

WorkerPool::WorkerPool(unsigned threads) : thread_count_(std::max(1U, threads)) {
  const MutexLock lock(mutex_);
  for (unsigned i = 0; i < thread_count_; ++i) {
    start_worker();
  }
}

WorkerPool::~WorkerPool() {
  stop();
}

void WorkerPool::start_worker() {
  Worker& worker = workers_.emplace_back();
  worker.thread = std::thread([this, &worker] { run(worker); });
}

void WorkerPool::submit(Priority priority, std::function<void()> job, uint64_t source) {
  {
    const MutexLock lock(mutex_);
    if (stopping_) {
      return;
    }
    queues_.at(static_cast<size_t>(priority)).push_back({std::move(job), source});
  }
  wake_.notify_one();
}

void WorkerPool::replace_stopped() {
  const MutexLock lock(mutex_);
  if (stopping_) {
    return;
  }
  const Clock::time_point now = Clock::now();
  unsigned missing = 0;
  for (Worker& worker : workers_) {
    const Clock::rep since = worker.waits_since.load(std::memory_order_relaxed);
    const bool waits = since != 0 && now - Clock::time_point(Clock::duration(since)) >= kStops;
    if (waits && !worker.replaced && worker.source != 0) {
      worker.replaced = true;
      ++stopped_[worker.source];
      ++missing;
    }
  }
  for (; missing > 0; --missing) {
    start_worker();
  }
}

void WorkerPool::stop() {
  std::array<std::deque<Job>, 3> dropped;
  std::list<Worker> ended;
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    dropped.swap(queues_);  // destroyed outside the lock: a job may own the last reference to what it works on
    ended.swap(workers_);   // their addresses stay
  }
  wake_.notify_all();
  for (Worker& worker : ended) {
    worker.thread.join();
  }
}

bool WorkerPool::take_job(Job& job) {
  for (std::deque<Job>& queue : queues_) {
    const auto next = stopped_.empty() ? queue.begin() : std::find_if(queue.begin(), queue.end(), [&](const Job& one) {
      return !stopped_.contains(one.source);
    });
    if (next != queue.end()) {
      job = std::move(*next);
      queue.erase(next);
      return true;
    }
  }
  return false;
}

void WorkerPool::run(Worker& worker) {
  current = &worker;
  for (;;) {
    Job job;
    {
      const MutexLock lock(mutex_);
      if (worker.replaced) {
        // The source goes on. Another thread has the place of this one.
        if (const auto stopped = stopped_.find(worker.source); --stopped->second == 0) {
          stopped_.erase(stopped);
        }
        wake_.notify_all();
        if (!stopping_) {
          const auto self =
              std::find_if(workers_.begin(), workers_.end(), [&](Worker& one) { return &one == &worker; });
          self->thread.detach();
          workers_.erase(self);
        }
        return;
      }
      worker.source = 0;
      while (!take_job(job)) {
        if (stopping_) {
          return;
        }
        wake_.wait(mutex_);
      }
      worker.source = job.source;
    }
    job.run();
  }
}

}  // namespace qcache

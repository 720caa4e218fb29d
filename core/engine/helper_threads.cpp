#include "core/engine/helper_threads.h"

#include <chrono>
#include <deque>
#include <thread>

#include "core/base/mutex.h"

namespace qcache {
namespace {

constexpr std::chrono::seconds kKeptIdle{10};
constexpr std::chrono::seconds kLastPatience{1};

}  // namespace

struct HelperThreads::State {
  explicit State(unsigned limit) : most(limit) {}

  const unsigned most;
  Mutex mutex;
  CondVar work;
  CondVar ended;
  std::deque<std::function<void()>> jobs QCACHE_GUARDED_BY(mutex);
  unsigned threads QCACHE_GUARDED_BY(mutex) = 0;
  unsigned idle QCACHE_GUARDED_BY(mutex) = 0;
  bool stopping QCACHE_GUARDED_BY(mutex) = false;
};

HelperThreads::HelperThreads(unsigned most) : state_(std::make_shared<State>(most)) {}

HelperThreads::~HelperThreads() {
  stop();
}

void HelperThreads::stop() {
  std::deque<std::function<void()>> dropped;
  const auto deadline = std::chrono::steady_clock::now() + kLastPatience;
  const MutexLock lock(state_->mutex);
  if (state_->stopping) {
    return;  // perhaps one of its own jobs, which held the last reference
  }
  state_->stopping = true;
  dropped.swap(state_->jobs);
  state_->work.notify_all();
  while (state_->threads > 0) {
    const auto left = deadline - std::chrono::steady_clock::now();
    if (left <= std::chrono::nanoseconds(0)) {
      break;
    }
    state_->ended.wait_for(state_->mutex, left);
  }
}

void HelperThreads::run(std::function<void()> job) {
  const MutexLock lock(state_->mutex);
  if (state_->stopping) {
    return;
  }
  state_->jobs.push_back(std::move(job));
  if (state_->jobs.size() > state_->idle && state_->threads < state_->most) {
    std::thread([state = state_] { serve(state); }).detach();
    ++state_->threads;
  }
  state_->work.notify_one();
}

void HelperThreads::serve(const std::shared_ptr<State>& state) {
  for (;;) {
    std::function<void()> job;
    {
      const MutexLock lock(state->mutex);
      bool waited = false;
      while (state->jobs.empty()) {
        if (state->stopping || waited) {
          --state->threads;
          state->ended.notify_all();
          return;
        }
        ++state->idle;
        waited = !state->work.wait_for(state->mutex, kKeptIdle);
        --state->idle;
      }
      job = std::move(state->jobs.front());
      state->jobs.pop_front();
    }
    job();
  }
}

}  // namespace qcache

#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "core/base/mutex.h"

namespace qcache {

/// What `ask` returns, or nothing where it does not return in time: then its thread is left behind, with whatever `ask`
/// holds. For what the system may let wait without end.
template <typename Ask>
auto ask_in_time(std::chrono::milliseconds patience, const Ask& ask) -> std::optional<decltype(ask())> {
  struct Shared {
    Mutex mutex;
    CondVar done;
    std::optional<decltype(ask())> answer;
  };
  const auto shared = std::make_shared<Shared>();
  std::thread([shared, ask] {
    auto answer = ask();
    const MutexLock lock(shared->mutex);
    shared->answer.emplace(std::move(answer));
    shared->done.notify_all();
  }).detach();
  const auto until = std::chrono::steady_clock::now() + patience;
  const MutexLock lock(shared->mutex);
  while (!shared->answer && std::chrono::steady_clock::now() < until) {
    shared->done.wait_for(shared->mutex, until - std::chrono::steady_clock::now());
  }
  return std::move(shared->answer);
}

}  // namespace qcache

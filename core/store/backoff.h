#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "core/base/env.h"

namespace qcache {

/// Paces the polling of a lock that cannot be waited for with a limit: pauses grow from 0.2 ms to 5 ms until
/// `patience` has passed, by the clock of `env`. One thread.
class Backoff {
 public:
  Backoff(Env& env, std::chrono::nanoseconds patience)
      : env_(env), deadline_ns_(env.monotonic_ns() + patience.count()) {}

  /// Sleeps once; false, at once, where the patience has run out.
  [[nodiscard]] bool pause() {
    if (env_.monotonic_ns() >= deadline_ns_) {
      return false;
    }
    env_.sleep(pause_ns_);
    pause_ns_ = std::min(pause_ns_ * 2, kLongestNs);
    return true;
  }

 private:
  static constexpr int64_t kShortestNs = 200'000;
  static constexpr int64_t kLongestNs = 5'000'000;

  Env& env_;
  const int64_t deadline_ns_;
  int64_t pause_ns_ = kShortestNs;
};

}  // namespace qcache

#pragma once

#include <algorithm>
#include <chrono>
#include <thread>

namespace qcache {

/// Paces the polling of a lock that cannot be waited for with a limit: pauses grow from 0.2 ms to 5 ms until
/// `patience` has passed. One thread.
class Backoff {
 public:
  explicit Backoff(std::chrono::milliseconds patience) : deadline_(Clock::now() + patience) {}

  /// Sleeps once; false, at once, where the patience has run out.
  [[nodiscard]] bool pause() {
    if (Clock::now() >= deadline_) {
      return false;
    }
    std::this_thread::sleep_for(pause_);
    pause_ = std::min(pause_ * 2, kLongest);
    return true;
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::microseconds kShortest{200};
  static constexpr std::chrono::microseconds kLongest{5000};

  const Clock::time_point deadline_;
  std::chrono::microseconds pause_ = kShortest;
};

}  // namespace qcache

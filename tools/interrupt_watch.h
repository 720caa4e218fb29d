#pragma once

#include <csignal>

#include <array>

namespace qcache {

/// While one of these lives, SIGINT, SIGTERM and SIGHUP do not end the process but are remembered, so that long work
/// can end tidily. A second signal of the kind ends the process after all. One at a time.
class InterruptWatch {
 public:
  InterruptWatch();
  ~InterruptWatch();
  InterruptWatch(const InterruptWatch&) = delete;
  InterruptWatch& operator=(const InterruptWatch&) = delete;

  /// Whether a signal came since this was made. Any thread may ask.
  [[nodiscard]] static bool interrupted() { return signal() != 0; }
  /// Which; 0 where none did.
  [[nodiscard]] static int signal();

 private:
  std::array<struct sigaction, 3> previous_{};
};

}  // namespace qcache

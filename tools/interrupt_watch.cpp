#include "tools/interrupt_watch.h"

#include <atomic>

namespace qcache {
namespace {

constexpr std::array kSignals = {SIGINT, SIGTERM, SIGHUP};
std::atomic<int> signalled{0};  // what a signal handler may touch
static_assert(std::atomic<int>::is_always_lock_free);

}  // namespace

InterruptWatch::InterruptWatch() {
  signalled = 0;
  struct sigaction action {};
  action.sa_handler = [](int number) { signalled = number; };
  action.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);
  for (size_t i = 0; i < kSignals.size(); ++i) {
    ::sigaction(kSignals.at(i), &action, &previous_.at(i));
  }
}

InterruptWatch::~InterruptWatch() {
  for (size_t i = 0; i < kSignals.size(); ++i) {
    ::sigaction(kSignals.at(i), &previous_.at(i), nullptr);
  }
}

int InterruptWatch::signal() {
  return signalled;
}

}  // namespace qcache

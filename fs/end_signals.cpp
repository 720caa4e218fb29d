#include "fs/end_signals.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>

namespace qcache {
namespace {

constexpr std::array kEndSignals = {SIGTERM, SIGINT, SIGHUP};
constexpr char kSignalled = 's';
constexpr char kStop = 'q';

std::atomic<int> handler_fd{-1};

void on_signal(int /*number*/) {
  const int saved = errno;
  // A full pipe holds signals enough.
  [[maybe_unused]] const ssize_t written = ::write(handler_fd, &kSignalled, 1);
  errno = saved;
}

void handle_default(int number, void (*handler)(int)) {
  struct ::sigaction old {};
  if (::sigaction(number, nullptr, &old) == 0 && old.sa_handler == SIG_DFL) {
    struct ::sigaction action {};
    action.sa_handler = handler;
    (void)::sigaction(number, &action, nullptr);
  }
}

void restore_default(int number, void (*handler)(int)) {
  struct ::sigaction old {};
  if (::sigaction(number, nullptr, &old) == 0 && old.sa_handler == handler) {
    (void)::signal(number, SIG_DFL);
  }
}

}  // namespace

Result<EndSignals> EndSignals::catch_them() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) {
    return fail(system_error(errno, "cannot make a pipe for signals"));
  }
  EndSignals signals{UniqueFd(ends[0]), UniqueFd(ends[1])};
  handler_fd = ends[1];
  for (const int number : kEndSignals) {
    handle_default(number, on_signal);
  }
  handle_default(SIGPIPE, SIG_IGN);
  return signals;
}

EndSignals::~EndSignals() {
  if (sender_.valid()) {
    for (const int number : kEndSignals) {
      restore_default(number, on_signal);
    }
    restore_default(SIGPIPE, SIG_IGN);
    handler_fd = -1;
  }
}

EndSignals::Event EndSignals::wait(std::optional<std::chrono::milliseconds> patience) {
  ::pollfd poll{receiver_.get(), POLLIN, 0};
  int ready = 0;
  do {
    ready = ::poll(&poll, 1, patience ? static_cast<int>(patience->count()) : -1);
  } while (ready < 0 && errno == EINTR);
  char word = kSignalled;
  if (ready <= 0 || ::read(receiver_.get(), &word, 1) != 1) {
    return Event::kTimeout;
  }
  if (word == kStop) {
    stop_waiting();  // for the next call
    return Event::kStopped;
  }
  return Event::kSignal;
}

void EndSignals::stop_waiting() {
  [[maybe_unused]] const ssize_t written = ::write(sender_.get(), &kStop, 1);
}

}  // namespace qcache

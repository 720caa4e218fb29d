#include "tools/background.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <string>

#include "core/base/log.h"
#include "core/base/unique_fd.h"

namespace qcache {
namespace {

constexpr char kReady = 'R';

// What the child says: one byte 'R', or the error's kind as a byte followed by its message.
bool send(int fd, const std::string& message) {
  size_t done = 0;
  while (done < message.size()) {
    const ssize_t n = ::write(fd, message.data() + done, message.size() - done);
    if (n <= 0) {
      return false;  // the parent is gone: nobody to tell
    }
    done += static_cast<size_t>(n);
  }
  return true;
}

std::string receive_all(int fd) {
  std::string out;
  std::array<char, 4096> buffer{};
  for (;;) {
    const ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      return out;
    }
    out.append(buffer.data(), static_cast<size_t>(n));
  }
}

void leave_terminal() {
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    ::dup2(null.get(), fd);
  }
}

// Closes what the caller has open besides the standard streams: a lock would be held, and a file kept open, for as long
// as the mount lives. Returns the one to keep.
UniqueFd only_descriptor(UniqueFd keep) {
  constexpr int kFirst = 3;
  if (keep.get() != kFirst) {
    if (::dup3(keep.get(), kFirst, O_CLOEXEC) != kFirst) {
      return keep;
    }
    keep = UniqueFd(kFirst);
  }
  ::close_range(kFirst + 1, ~0U, 0);
  return keep;
}

}  // namespace

Status run_in_background(const std::function<Status(const std::function<void()>& ready)>& serve) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    return fail(system_error(errno, "cannot start the background process"));
  }
  UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  const pid_t pid = ::fork();
  if (pid < 0) {
    return fail(system_error(errno, "cannot start the background process"));
  }
  if (pid > 0) {
    writer.reset();
    const std::string answer = receive_all(reader.get());
    if (!answer.empty() && answer[0] == kReady) {
      return {};
    }
    ::waitpid(pid, nullptr, 0);
    if (answer.empty()) {
      return fail(ErrorKind::kInternal, "the background process ended without a word; try 'qcache mount -f'");
    }
    return fail(static_cast<ErrorKind>(answer[0] - 'a'), answer.substr(1));
  }

  reader.reset();
  writer = only_descriptor(std::move(writer));
  ::setsid();
  if (::chdir("/") != 0) {
    ::_exit(1);
  }
  const Status served = serve([&] {
    leave_terminal();
    if (!send(writer.get(), std::string(1, kReady))) {
      spdlog::warn("who asked for the mount has not waited for it: it is taken down");
      ::kill(::getpid(), SIGTERM);
    }
    writer.reset();
  });
  if (!served && writer.valid()) {
    (void)send(writer.get(), static_cast<char>('a' + static_cast<int>(served.error().kind)) + served.error().message);
  } else if (!served) {
    spdlog::error("{}", served.error().message);
  }
  spdlog::shutdown();
  ::_exit(served ? 0 : 1);  // not exit(): the parent's static objects are not ours to destroy
}

}  // namespace qcache

#include "tests/fs/stoppable_server.h"

#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <stdexcept>

#include "tests/support/mounted_fs.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

dev_t device_of(const std::string& path) {
  struct ::stat st {};
  return ::stat(path.c_str(), &st) == 0 ? st.st_dev : 0;
}

}  // namespace

StoppableServer::StoppableServer(const std::string& source, std::string mount_point, int64_t seconds_ahead)
    : mount_point_(std::move(mount_point)) {
  make_directories(mount_point_);
  const dev_t before = device_of(mount_point_);
  const std::string ahead = std::to_string(seconds_ahead);
  pid_ = ::fork();
  if (pid_ == 0) {
    ::execl(QCACHE_STOPPABLE_FS, "stoppable_fs", source.c_str(), mount_point_.c_str(), ahead.c_str(), nullptr);
    ::_exit(127);
  }
  if (!eventually([&] { return device_of(mount_point_) != before; })) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    throw std::runtime_error("cannot mount the test's own filesystem on " + mount_point_);
  }
}

StoppableServer::~StoppableServer() {
  go_on();
  ::umount2(mount_point_.c_str(), MNT_DETACH);
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void StoppableServer::stop() const {
  ::kill(pid_, SIGSTOP);
  int status = 0;
  ::waitpid(pid_, &status, WUNTRACED);  // until it is
}

void StoppableServer::go_on() const {
  ::kill(pid_, SIGCONT);
}

}  // namespace qcache

#include "tests/fs/file_access.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <stdexcept>
#include <system_error>

#include "tests/support/mounted_fs.h"

namespace qcache {
namespace {

[[noreturn]] void give_up(const std::string& what) {
  throw std::runtime_error(what + ": " + std::generic_category().message(errno));
}

int status_of(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

UniqueFd open_file(const std::string& path) {
  return UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
}

int open_error(const std::string& path, int flags) {
  const UniqueFd fd(::open(path.c_str(), flags | O_CLOEXEC, 0644));
  return fd.valid() ? 0 : errno;
}

ReadResult read_at(int fd, uint64_t offset, size_t size) {
  ReadResult result;
  result.bytes.resize(size);
  const ssize_t got = ::pread(fd, result.bytes.data(), size, static_cast<off_t>(offset));
  result.error = got < 0 ? errno : 0;
  result.bytes.resize(static_cast<size_t>(std::max<ssize_t>(got, 0)));
  return result;
}

ReadResult read_whole(const std::string& path, size_t chunk) {
  ReadResult whole;
  const UniqueFd fd = open_file(path);
  if (!fd.valid()) {
    whole.error = errno;
    return whole;
  }
  for (;;) {
    const ReadResult part = read_at(fd.get(), whole.bytes.size(), chunk);
    whole.bytes += part.bytes;
    whole.error = part.error;
    if (part.bytes.empty()) {
      return whole;
    }
  }
}

struct ::stat stat_of(const std::string& path) {
  struct ::stat found {};
  if (::stat(path.c_str(), &found) != 0) {
    give_up("cannot stat " + path);
  }
  return found;
}

int stat_error(const std::string& path) {
  struct ::stat found {};
  return ::stat(path.c_str(), &found) == 0 ? 0 : errno;
}

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

int set_xattr(const std::string& path, const std::string& name, std::string_view value) {
  return ::setxattr(path.c_str(), name.c_str(), value.data(), value.size(), 0) == 0 ? 0 : errno;
}

::testing::AssertionResult same_bytes(std::string_view got, std::string_view expected) {
  if (got == expected) {
    return ::testing::AssertionSuccess();
  }
  const auto [at, other] = std::mismatch(got.begin(), got.end(), expected.begin(), expected.end());
  return ::testing::AssertionFailure() << got.size() << " bytes instead of " << expected.size()
                                       << ", the first difference at offset " << at - got.begin();
}

void damage_byte(const std::string& path, uint64_t offset) {
  const struct ::stat before = stat_of(path);
  const UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  const ReadResult old = read_at(fd.get(), offset, 1);
  const char changed = static_cast<char>(old.bytes.at(0) ^ 0x10);
  const timespec times[2] = {before.st_atim, before.st_mtim};
  if (::pwrite(fd.get(), &changed, 1, static_cast<off_t>(offset)) != 1 ||
      ::futimens(fd.get(), static_cast<const timespec*>(times)) != 0) {
    give_up("cannot damage " + path);
  }
}

Mapping::Mapping(int fd, uint64_t size, int flags, int protection)
    : address_(::mmap(nullptr, size, protection, flags, fd, 0)), size_(size) {
  if (address_ == MAP_FAILED) {
    give_up("cannot map");
  }
}

Mapping::~Mapping() {
  ::munmap(address_, size_);
}

Child::Child(const std::function<int()>& body) : pid_(::fork()) {
  if (pid_ < 0) {
    give_up("cannot fork");
  }
  if (pid_ == 0) {
    int status = 99;
    try {
      status = body();
    } catch (...) {  // the status says it
    }
    ::_exit(status);
  }
}

Child::~Child() {
  if (pid_ > 0) {
    signal(SIGKILL);
    wait();
  }
}

void Child::signal(int number) const {
  ::kill(pid_, number);
}

int Child::wait() {
  int status = 0;
  ::waitpid(pid_, &status, 0);
  pid_ = -1;
  return status_of(status);
}

int Child::wait_for(int seconds) {
  int status = 0;
  if (!eventually([&] { return ::waitpid(pid_, &status, WNOHANG) == pid_; }, std::chrono::seconds(seconds))) {
    return -1;
  }
  pid_ = -1;
  return status_of(status);
}

}  // namespace qcache

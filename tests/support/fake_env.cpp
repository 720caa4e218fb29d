#include "tests/support/fake_env.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <string_view>
#include <thread>
#include <utility>

namespace qcache {
namespace {

std::string path_behind(int fd) {
  std::array<char, PATH_MAX> target{};
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t size = ::readlink(link.c_str(), target.data(), target.size());
  return size > 0 ? std::string(target.data(), static_cast<size_t>(size)) : std::string();
}

// A path below /proc/self/fd, as the file that it leads to.
std::string path_behind(const std::string& path) {
  constexpr std::string_view kDescriptors = "/proc/self/fd/";
  if (!path.starts_with(kDescriptors)) {
    return path;
  }
  const size_t end = std::min(path.find('/', kDescriptors.size()), path.size());
  return path_behind(std::stoi(path.substr(kDescriptors.size(), end - kDescriptors.size()))) + path.substr(end);
}

}  // namespace

void FakeEnv::at(const std::string& point, std::function<void()> hook) {
  const MutexLock lock(mutex_);
  points_[point] = std::move(hook);
}

void FakeEnv::heal() {
  rules_.heal();
  const MutexLock lock(mutex_);
  points_.clear();
}

void FakeEnv::set_time(int64_t ns) {
  const MutexLock lock(mutex_);
  time_ns_ = ns;
}

void FakeEnv::advance(int64_t ns) {
  const MutexLock lock(mutex_);
  advance_locked(ns);
}

void FakeEnv::advance_locked(int64_t ns) {
  time_ns_ = time_ns_.value_or(base_.now_ns()) + ns;
  monotonic_ahead_ns_ += ns;
}

void FakeEnv::set_space(SpaceInfo space) {
  const MutexLock lock(mutex_);
  space_ = space;
}

Status FakeEnv::enter(EnvCall call, const std::string& path) {
  if (const auto failure = rules_.enter(call, path)) {
    return qcache::fail(system_error(*failure, "injected failure at " + path));
  }
  return {};
}

Result<UniqueFd> FakeEnv::open(const std::string& path, int flags, mode_t mode) {
  QCACHE_TRY(enter(EnvCall::kOpen, path_behind(path)));
  return base_.open(path, flags, mode);
}

Result<size_t> FakeEnv::read_at(int fd, std::span<std::byte> out, uint64_t offset) {
  QCACHE_TRY(enter(EnvCall::kReadAt, path_behind(fd)));
  return base_.read_at(fd, out, offset);
}

Status FakeEnv::write_at(int fd, std::span<const std::byte> bytes, uint64_t offset) {
  if (Status failure = enter(EnvCall::kWriteAt, path_behind(fd)); !failure) {
    QCACHE_TRY(base_.write_at(fd, bytes.first(bytes.size() / 2), offset));
    return failure;
  }
  return base_.write_at(fd, bytes, offset);
}

Status FakeEnv::truncate(int fd, uint64_t size_bytes) {
  QCACHE_TRY(enter(EnvCall::kTruncate, path_behind(fd)));
  return base_.truncate(fd, size_bytes);
}

Status FakeEnv::allocate(int fd, uint64_t size_bytes) {
  QCACHE_TRY(enter(EnvCall::kAllocate, path_behind(fd)));
  return base_.allocate(fd, size_bytes);
}

Status FakeEnv::punch_hole(int fd, ByteRange range) {
  QCACHE_TRY(enter(EnvCall::kPunchHole, path_behind(fd)));
  return base_.punch_hole(fd, range);
}

Status FakeEnv::sync(int fd) {
  QCACHE_TRY(enter(EnvCall::kSync, path_behind(fd)));
  return base_.sync(fd);
}

Status FakeEnv::sync_directory(const std::string& path) {
  QCACHE_TRY(enter(EnvCall::kSyncDirectory, path));
  return base_.sync_directory(path);
}

Status FakeEnv::start_writeback(int fd) {
  QCACHE_TRY(enter(EnvCall::kStartWriteback, path_behind(fd)));
  return base_.start_writeback(fd);
}

Status FakeEnv::advise(int fd, ReadPattern pattern) {
  QCACHE_TRY(enter(EnvCall::kAdvise, path_behind(fd)));
  return base_.advise(fd, pattern);
}

Status FakeEnv::change_mode(int fd, mode_t mode) {
  QCACHE_TRY(enter(EnvCall::kChangeMode, path_behind(fd)));
  return base_.change_mode(fd, mode);
}

Status FakeEnv::touch(int fd) {
  QCACHE_TRY(enter(EnvCall::kTouch, path_behind(fd)));
  return base_.touch(fd);
}

Status FakeEnv::rename(const std::string& from, const std::string& to) {
  QCACHE_TRY(enter(EnvCall::kRename, from));
  return base_.rename(from, to);
}

Status FakeEnv::remove(const std::string& path) {
  QCACHE_TRY(enter(EnvCall::kRemove, path));
  return base_.remove(path);
}

Status FakeEnv::make_directory(const std::string& path, mode_t mode) {
  QCACHE_TRY(enter(EnvCall::kMakeDirectory, path));
  return base_.make_directory(path, mode);
}

Result<FileStat> FakeEnv::stat(const std::string& path) {
  QCACHE_TRY(enter(EnvCall::kStat, path));
  return base_.stat(path);
}

Result<FileStat> FakeEnv::stat(int fd) {
  QCACHE_TRY(enter(EnvCall::kStat, path_behind(fd)));
  return base_.stat(fd);
}

Result<std::vector<std::string>> FakeEnv::list(const std::string& path) {
  QCACHE_TRY(enter(EnvCall::kList, path_behind(path)));
  return base_.list(path);
}

Result<std::string> FakeEnv::real_path(const std::string& path) {
  QCACHE_TRY(enter(EnvCall::kRealPath, path));
  return base_.real_path(path);
}

Result<std::string> FakeEnv::path_of(int fd) {
  QCACHE_TRY(enter(EnvCall::kPathOf, path_behind(fd)));
  return base_.path_of(fd);
}

Result<SpaceInfo> FakeEnv::space(const std::string& path) {
  QCACHE_TRY(enter(EnvCall::kSpace, path));
  {
    const MutexLock lock(mutex_);
    if (space_) {
      return *space_;
    }
  }
  return base_.space(path);
}

Result<bool> FakeEnv::try_lock(int fd, LockKind kind) {
  QCACHE_TRY(enter(EnvCall::kLock, path_behind(fd)));
  return base_.try_lock(fd, kind);
}

Status FakeEnv::unlock(int fd) {
  QCACHE_TRY(enter(EnvCall::kUnlock, path_behind(fd)));
  return base_.unlock(fd);
}

Result<bool> FakeEnv::try_lock_byte(int fd, uint64_t offset, LockKind kind) {
  QCACHE_TRY(enter(EnvCall::kLockByte, path_behind(fd)));
  return base_.try_lock_byte(fd, offset, kind);
}

Status FakeEnv::unlock_byte(int fd, uint64_t offset) {
  QCACHE_TRY(enter(EnvCall::kUnlockByte, path_behind(fd)));
  return base_.unlock_byte(fd, offset);
}

int64_t FakeEnv::now_ns() {
  const MutexLock lock(mutex_);
  return time_ns_ ? *time_ns_ : base_.now_ns();
}

int64_t FakeEnv::monotonic_ns() {
  const MutexLock lock(mutex_);
  return base_.monotonic_ns() + monotonic_ahead_ns_;
}

void FakeEnv::sleep(int64_t ns) {
  (void)enter(EnvCall::kSleep, "");
  bool stands = false;
  {
    const MutexLock lock(mutex_);
    stands = time_ns_.has_value();
    if (stands) {
      advance_locked(ns);
    }
  }
  if (stands) {
    std::this_thread::yield();  // to whoever is waited for
  } else {
    base_.sleep(ns);
  }
}

void FakeEnv::reached(std::string_view point) {
  std::function<void()> hook;
  {
    const MutexLock lock(mutex_);
    const auto found = points_.find(point);
    if (found == points_.end()) {
      return;
    }
    hook = found->second;
  }
  hook();
}

}  // namespace qcache

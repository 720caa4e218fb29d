#include "tests/support/fake_env.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <string_view>
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

void FakeEnv::fail(EnvCall call, uint64_t nth, int sys_errno, const std::string& part) {
  const MutexLock lock(mutex_);
  rules_.push_back({call, part, nth, sys_errno, nullptr});
}

void FakeEnv::fail_all(EnvCall call, int sys_errno, const std::string& part) {
  const MutexLock lock(mutex_);
  rules_.push_back({call, part, std::nullopt, sys_errno, nullptr});
}

void FakeEnv::before(EnvCall call, uint64_t nth, std::function<void()> hook, const std::string& part) {
  const MutexLock lock(mutex_);
  rules_.push_back({call, part, nth, 0, std::move(hook)});
}

void FakeEnv::heal() {
  const MutexLock lock(mutex_);
  rules_.clear();
}

uint64_t FakeEnv::count(EnvCall call) const {
  const MutexLock lock(mutex_);
  const auto found = counts_.find(call);
  return found == counts_.end() ? 0 : found->second;
}

void FakeEnv::set_time(int64_t ns) {
  const MutexLock lock(mutex_);
  time_ns_ = ns;
}

void FakeEnv::advance(int64_t ns) {
  const MutexLock lock(mutex_);
  time_ns_ = time_ns_.value_or(base_.now_ns()) + ns;
  monotonic_ahead_ns_ += ns;
}

void FakeEnv::set_space(SpaceInfo space) {
  const MutexLock lock(mutex_);
  space_ = space;
}

Status FakeEnv::enter(EnvCall call, const std::string& path) {
  std::vector<std::function<void()>> hooks;
  int failure = 0;
  {
    const MutexLock lock(mutex_);
    ++counts_[call];
    for (auto rule = rules_.begin(); rule != rules_.end();) {
      const bool counted = rule->call == call && path.find(rule->part) != std::string::npos;
      if (!counted || (rule->calls_left && --*rule->calls_left > 0)) {
        ++rule;
        continue;
      }
      if (rule->hook) {
        hooks.push_back(std::move(rule->hook));
      } else if (failure == 0) {
        failure = rule->sys_errno;
      }
      rule = rule->calls_left ? rules_.erase(rule) : std::next(rule);
    }
  }
  for (const auto& hook : hooks) {
    hook();
  }
  if (failure != 0) {
    return qcache::fail(system_error(failure, "injected failure at " + path));
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

Status FakeEnv::sync(int fd) {
  QCACHE_TRY(enter(EnvCall::kSync, path_behind(fd)));
  return base_.sync(fd);
}

Status FakeEnv::sync_directory(const std::string& path) {
  QCACHE_TRY(enter(EnvCall::kSyncDirectory, path));
  return base_.sync_directory(path);
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

int64_t FakeEnv::now_ns() {
  const MutexLock lock(mutex_);
  return time_ns_ ? *time_ns_ : base_.now_ns();
}

int64_t FakeEnv::monotonic_ns() {
  const MutexLock lock(mutex_);
  return base_.monotonic_ns() + monotonic_ahead_ns_;
}

}  // namespace qcache

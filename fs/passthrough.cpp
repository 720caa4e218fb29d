#include "fs/passthrough.h"

#include <sys/ioctl.h>

#include <cerrno>
#include <system_error>

#include "core/base/log.h"

namespace qcache {
namespace {

// Of linux/fuse.h; Debian 12 has one without them.
struct BackingMap {
  int32_t fd = -1;
  uint32_t flags = 0;
  uint64_t padding = 0;
};
constexpr unsigned long kBackingOpen = _IOW(229, 1, BackingMap);
constexpr unsigned long kBackingClose = _IOW(229, 2, uint32_t);

constexpr int64_t kRetryNs = 60'000'000'000;

}  // namespace

std::string_view to_string(PassthroughState state) {
  switch (state) {
    case PassthroughState::kOff:
      return "off";
    case PassthroughState::kUnsupported:
      return "unsupported";
    case PassthroughState::kUntried:
      return "untried";
    case PassthroughState::kWorks:
      return "works";
    case PassthroughState::kNotPermitted:
      return "not-permitted";
    case PassthroughState::kRefused:
      return "refused";
  }
  return "";
}

Passthrough::Passthrough(bool wanted, Env& env)
    : env_(env),
      state_(!wanted                       ? PassthroughState::kOff
             : QCACHE_HAS_PASSTHROUGH == 0 ? PassthroughState::kUnsupported
                                           : PassthroughState::kUntried) {}

void Passthrough::negotiate([[maybe_unused]] fuse_conn_info* connection) {
  if (!enabled()) {
    return;
  }
#if QCACHE_HAS_PASSTHROUGH
  if (fuse_set_feature_flag(connection, FUSE_CAP_PASSTHROUGH)) {
    connection->max_backing_stack_depth = FUSE_BACKING_STACKED_UNDER;
    return;
  }
#endif
  spdlog::warn("this kernel has no FUSE passthrough (Linux 6.9 has): sealed files are served through the page cache");
  state_ = PassthroughState::kUnsupported;
}

Passthrough::Hold Passthrough::open(uint64_t node_id, int fd, uint64_t device) {
  const MutexLock lock(mutex_);
  Entry& entry = entries_[node_id];
  if (entry.opens == 0) {
    entry.opened = first_open(fd, device);
  }
  ++entry.opens;
  return {*this, node_id, entry.opened};
}

Passthrough::Opened Passthrough::first_open(int fd, uint64_t device) {
  if (!enabled()) {
    return {};
  }
  const auto refused = refused_until_.find(device);
  const int64_t now = env_.monotonic_ns();
  if (refused != refused_until_.end() && now < refused->second) {
    return {};
  }
  const int32_t id = open_backing(fd);
  if (id > 0) {
    refused_until_.erase(device);
    taken_.insert(device);
    return Opened{SealedMode::kPassthrough, id};
  }
  const std::string reason = std::generic_category().message(-id);
  if (id == -EPERM) {
    spdlog::warn("the kernel refuses passthrough ({}): sealed files are served through the page cache from now on",
                 reason);
    state_ = PassthroughState::kNotPermitted;
  } else {
    if (refused == refused_until_.end()) {
      spdlog::warn("the kernel refuses passthrough for a filesystem ({}): its files are served through the page cache",
                   reason);
    }
    refused_until_[device] = now + kRetryNs;
  }
  return {};
}

void Passthrough::release(uint64_t node_id) {
  const MutexLock lock(mutex_);
  const auto entry = entries_.find(node_id);
  if (entry == entries_.end() || --entry->second.opens > 0) {
    return;
  }
  if (entry->second.opened.mode == SealedMode::kPassthrough) {
    close_backing(entry->second.opened.backing_id);
  }
  entries_.erase(entry);
}

PassthroughState Passthrough::state_on(uint64_t device) const {
  const MutexLock lock(mutex_);
  if (!enabled()) {
    return state_;
  }
  return refused_until_.contains(device) ? PassthroughState::kRefused
         : taken_.contains(device)       ? PassthroughState::kWorks
                                         : PassthroughState::kUntried;
}

int32_t Passthrough::open_backing(int fd) {
  BackingMap map;
  map.fd = fd;
  const int id = ::ioctl(session_fd_, kBackingOpen, &map);
  return id < 0 ? -errno : id;
}

void Passthrough::close_backing(int32_t id) {
  if (session_fd_ >= 0 && ::ioctl(session_fd_, kBackingClose, &id) != 0) {
    spdlog::warn("the kernel keeps a backing file: {}", std::generic_category().message(errno));
  }
}

}  // namespace qcache

#include "fs/passthrough.h"

#include <cerrno>
#include <system_error>

#include "core/base/log.h"

namespace qcache {

void Passthrough::negotiate([[maybe_unused]] fuse_conn_info* connection) {
  if (!enabled_) {
    return;
  }
#if QCACHE_HAS_PASSTHROUGH
  if (fuse_set_feature_flag(connection, FUSE_CAP_PASSTHROUGH)) {
    connection->max_backing_stack_depth = FUSE_BACKING_STACKED_UNDER;
    return;
  }
#endif
  spdlog::warn("this kernel has no FUSE passthrough (Linux 6.9 has): sealed files are served through the page cache");
  enabled_ = false;
}

Passthrough::Opened Passthrough::open([[maybe_unused]] fuse_req_t request, uint64_t node_id, [[maybe_unused]] int fd) {
  const MutexLock lock(mutex_);
  Entry& entry = entries_[node_id];
  if (entry.opens++ > 0) {
    return entry.opened;
  }
#if QCACHE_HAS_PASSTHROUGH
  if (enabled_) {
    const int id = fuse_passthrough_open(request, fd);
    if (id > 0) {
      entry.opened = Opened{SealedMode::kPassthrough, id};
    } else {
      spdlog::warn("the kernel refuses passthrough ({}): sealed files are served through the page cache from now on",
                   std::generic_category().message(errno));
      enabled_ = false;
    }
  }
#endif
  return entry.opened;
}

void Passthrough::release([[maybe_unused]] fuse_req_t request, uint64_t node_id) {
  const MutexLock lock(mutex_);
  const auto entry = entries_.find(node_id);
  if (entry == entries_.end() || --entry->second.opens > 0) {
    return;
  }
#if QCACHE_HAS_PASSTHROUGH
  if (entry->second.opened.mode == SealedMode::kPassthrough) {
    fuse_passthrough_close(request, entry->second.opened.backing_id);
  }
#endif
  entries_.erase(entry);
}

}  // namespace qcache

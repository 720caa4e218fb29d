#pragma once

#include <atomic>
#include <cstdint>
#include <unordered_map>

#include "core/base/mutex.h"
#include "fs/fuse_api.h"

namespace qcache {

/// How the kernel serves an open sealed file.
enum class SealedMode : uint8_t {
  kPassthrough,  ///< straight from the backing file; the daemon sees no read
  kPageCache,    ///< the kernel asks the daemon and keeps the pages
};

/// Hands sealed files to the kernel.
///
/// Rules of the kernel (fs/fuse/iomode.c; a breach is EIO for the application): all opens of one inode use one mode
/// and, with passthrough, one backing id. So the mode is chosen by a node's first open and kept until its last release.
/// Passthrough is given up for the whole mount when the kernel first refuses it (no CAP_SYS_ADMIN, or a cache directory
/// on a stacked filesystem); files already handed over stay so. Thread-safe.
class Passthrough {
 public:
  explicit Passthrough(bool wanted) : enabled_(wanted && QCACHE_HAS_PASSTHROUGH != 0) {}

  /// Called from the init handler: asks the kernel for the feature, or gives up.
  void negotiate(fuse_conn_info* connection);

  struct Opened {
    SealedMode mode = SealedMode::kPageCache;
    int32_t backing_id = 0;
  };
  /// To be called for every open of a sealed node before it is answered; `fd` is the backing file.
  Opened open(fuse_req_t request, uint64_t node_id, int fd) QCACHE_EXCLUDES(mutex_);
  /// To be called for every release.
  void release(fuse_req_t request, uint64_t node_id) QCACHE_EXCLUDES(mutex_);

  [[nodiscard]] bool enabled() const { return enabled_; }

 private:
  struct Entry {
    Opened opened;
    uint32_t opens = 0;
  };
  std::atomic<bool> enabled_;
  // Held during the two ioctls: two first opens of a node must not make two ids. They do not block.
  Mutex mutex_;
  std::unordered_map<uint64_t, Entry> entries_ QCACHE_GUARDED_BY(mutex_);
};

}  // namespace qcache

#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "core/base/env.h"
#include "core/base/mutex.h"
#include "fs/fuse_api.h"

namespace qcache {

/// Whether complete files are handed to the kernel, as far as is known by now.
enum class PassthroughState : uint8_t {
  kOff,           ///< nobody wants it
  kUnsupported,   ///< by this kernel, or the libfuse that qcache was built with
  kUntried,       ///< no complete file was opened yet
  kWorks,         ///< the kernel has taken one
  kNotPermitted,  ///< it takes none from a process without CAP_SYS_ADMIN
  kRefused,       ///< it takes none of this filesystem
};
/// "off", "unsupported", "untried", "works", "not-permitted", "refused".
[[nodiscard]] std::string_view to_string(PassthroughState state);

/// How the kernel serves an open sealed file.
enum class SealedMode : uint8_t {
  kPassthrough,  ///< straight from the backing file; the daemon sees no read
  kPageCache,    ///< the kernel asks the daemon and keeps the pages
};

/// Hands sealed files to the kernel.
///
/// Rules of the kernel (fs/fuse/iomode.c; a breach is EIO for the application): all opens of one inode use one mode
/// and, with passthrough, one backing id. So the mode is chosen by a node's first open and kept until its last release.
/// Where the kernel refuses a backing file (on overlayfs, say), files of that filesystem are not offered for a minute,
/// and all others are; without the privilege (CAP_SYS_ADMIN) none is offered again. Files already handed over stay so.
/// Thread-safe; must outlive every Hold.
class Passthrough {
 public:
  struct Opened {
    SealedMode mode = SealedMode::kPageCache;
    int32_t backing_id = 0;
  };

  /// One open of a sealed node: to be kept until its release. Move-only.
  class Hold {
   public:
    ~Hold() {
      if (owner_ != nullptr) {
        owner_->release(node_id_);
      }
    }
    Hold(Hold&& other) noexcept
        : owner_(std::exchange(other.owner_, nullptr)), node_id_(other.node_id_), opened_(other.opened_) {}
    Hold& operator=(Hold&&) = delete;
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

    [[nodiscard]] const Opened& opened() const { return opened_; }

   private:
    friend class Passthrough;
    Hold(Passthrough& owner, uint64_t node_id, Opened opened) : owner_(&owner), node_id_(node_id), opened_(opened) {}

    Passthrough* owner_;
    uint64_t node_id_;
    Opened opened_;
  };

  Passthrough(bool wanted, Env& env);
  virtual ~Passthrough() = default;
  Passthrough(const Passthrough&) = delete;
  Passthrough& operator=(const Passthrough&) = delete;

  /// Called from the init handler: asks the kernel for the feature, or gives up.
  void negotiate(fuse_conn_info* connection);
  /// The descriptor of the session, by which files are handed over and taken back. A request would do for the first
  /// only: it is gone when the reply to it fails, as that of an aborted open does.
  void connect(int session_fd) { session_fd_ = session_fd; }
  /// The session ends, and with it all that the kernel holds.
  void disconnect() { session_fd_ = -1; }

  /// To be called for every open of a sealed node before it is answered; `fd` is the backing file, on filesystem
  /// `device`.
  Hold open(uint64_t node_id, int fd, uint64_t device) QCACHE_EXCLUDES(mutex_);

  /// For no filesystem, or for the one with number `device`.
  [[nodiscard]] PassthroughState state() const { return state_; }
  [[nodiscard]] PassthroughState state_on(uint64_t device) const QCACHE_EXCLUDES(mutex_);

 protected:
  /// The two calls of the kernel; tests have others. open_backing() returns an id above 0, or a negative errno.
  [[nodiscard]] virtual int32_t open_backing(int fd);
  virtual void close_backing(int32_t id);

 private:
  struct Entry {
    Opened opened;
    uint32_t opens = 0;
  };
  Opened first_open(int fd, uint64_t device) QCACHE_REQUIRES(mutex_);
  void release(uint64_t node_id) QCACHE_EXCLUDES(mutex_);

  [[nodiscard]] bool enabled() const { return state_ == PassthroughState::kUntried; }

  Env& env_;
  std::atomic<PassthroughState> state_;  // kUntried while files are offered at all
  std::atomic<int> session_fd_{-1};
  // Held during the two ioctls: two first opens of a node must not make two ids. They do not block.
  mutable Mutex mutex_;
  std::unordered_map<uint64_t, Entry> entries_ QCACHE_GUARDED_BY(mutex_);
  std::unordered_map<uint64_t, int64_t> refused_until_ QCACHE_GUARDED_BY(mutex_);  // by device; monotonic
  std::unordered_set<uint64_t> taken_ QCACHE_GUARDED_BY(mutex_);  // devices of which the kernel has taken a file
};

}  // namespace qcache

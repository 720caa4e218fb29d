#pragma once

#include <memory>

#include "core/base/mutex.h"
#include "core/engine/artifact.h"
#include "fs/fuse_api.h"

namespace qcache {

/// One FUSE read on its way: replies exactly once, from whichever thread has the answer first, whatever is thrown, and
/// turns an interrupt into an answer of EINTR at once.
///
/// libfuse runs the interrupt function with the request's lock held, possibly while another thread is about to reply:
///   1. a worker has the bytes; it first unregisters the function, which waits for a running one to return
///   2. a running function cancels the pending read; if it comes first, it replies itself, and the worker's answer is
///      dropped by the artifact (a callback runs once)
///   3. registering the function may run it at once, in this thread, where replying is forbidden (libfuse still uses
///   the
///      request): it only leaves a note then, and start() acts on it
class ReadRequest : public std::enable_shared_from_this<ReadRequest> {
 public:
  /// Answers `request` with the bytes of `range` of `artifact`, now or later.
  static void start(fuse_req_t request, Artifact& artifact, ByteRange range, ReadIntent intent);

  explicit ReadRequest(fuse_req_t request) : request_(request) {}

 private:
  static void on_interrupt(fuse_req_t request, void* self);
  void interrupt() QCACHE_EXCLUDES(mutex_);
  void reply(const Result<std::span<const std::byte>>& bytes) QCACHE_EXCLUDES(mutex_);

  fuse_req* const request_;
  Mutex mutex_;
  std::shared_ptr<PendingRead> pending_ QCACHE_GUARDED_BY(mutex_);
  bool interrupted_ QCACHE_GUARDED_BY(mutex_) = false;
  bool answered_ QCACHE_GUARDED_BY(mutex_) = false;
};

}  // namespace qcache

#pragma once

#include <atomic>
#include <memory>

#include "fs/fuse_api.h"
#include "fs/later.h"

namespace qcache {

/// One FUSE request whose answer may take long, because it asks the filesystem of a model: answered exactly once, by
/// whoever claims it, or with EINTR where its caller got a signal and nobody has claimed it a moment later. The moment
/// is there for programs that get signals all the time: what takes milliseconds is still done for them.
///
/// After it was answered libfuse has freed the request, so that only who has claimed it may use it. Thread-safe.
class PendingRequest : public std::enable_shared_from_this<PendingRequest> {
 public:
  /// To be called by the thread that got the request, before anything else knows it.
  static std::shared_ptr<PendingRequest> start(fuse_req_t request, Later& later);
  PendingRequest(fuse_req_t request, Later& later) : request_(request), later_(later) {}

  /// True for one caller, who is to answer; false where the request was answered.
  [[nodiscard]] bool claim();
  [[nodiscard]] bool is_answered() const { return claimed_; }
  /// REQUIRES: claimed by the caller.
  [[nodiscard]] fuse_req_t get() const { return request_; }

 private:
  static void on_interrupt(fuse_req_t request, void* self);

  fuse_req* const request_;
  Later& later_;
  std::atomic<bool> claimed_ = false;
};

}  // namespace qcache

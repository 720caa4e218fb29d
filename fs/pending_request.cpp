#include "fs/pending_request.h"

#include <cerrno>
#include <chrono>

namespace qcache {
namespace {

constexpr std::chrono::milliseconds kGraceAfterSignal{200};

}  // namespace

std::shared_ptr<PendingRequest> PendingRequest::start(fuse_req_t request, Later& later) {
  auto self = std::make_shared<PendingRequest>(request, later);
  fuse_req_interrupt_func(request, &PendingRequest::on_interrupt, self.get());
  return self;
}

// libfuse holds the request's lock meanwhile, which claim() takes to unregister: so `self` is alive, and not answered.
void PendingRequest::on_interrupt(fuse_req_t /*request*/, void* self) {
  auto* const pending = static_cast<PendingRequest*>(self);
  pending->later_.after(kGraceAfterSignal, [kept = pending->shared_from_this()] {
    if (kept->claim()) {
      fuse_reply_err(kept->request_, EINTR);
    }
  });
}

bool PendingRequest::claim() {
  if (claimed_.exchange(true)) {
    return false;
  }
  fuse_req_interrupt_func(request_, nullptr, nullptr);
  return true;
}

}  // namespace qcache

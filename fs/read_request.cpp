#include "fs/read_request.h"

#include <exception>

#include "core/base/log.h"
#include "fs/errno_of.h"

namespace qcache {
namespace {

// Whether this thread is inside libfuse's interrupt callback, which holds the lock that unregistering takes.
thread_local bool in_interrupt_callback = false;

}  // namespace

void ReadRequest::start(fuse_req_t request, Artifact& artifact, ByteRange range, ReadIntent intent) {
  const auto self = std::make_shared<ReadRequest>(request);
  fuse_req_interrupt_func(request, &ReadRequest::on_interrupt, self.get());
  // From here on only reply() answers. What is thrown may leave a waiter behind that calls back all the same.
  std::shared_ptr<PendingRead> pending;
  try {
    pending =
        artifact.read(range, intent, [self](const Result<std::span<const std::byte>>& bytes) { self->reply(bytes); });
  } catch (const std::exception& e) {
    spdlog::error("a read failed: {}", e.what());
    self->reply(fail(Error{}));
    return;
  }
  if (!pending) {
    return;  // answered
  }
  bool interrupted = false;
  {
    const MutexLock lock(self->mutex_);
    interrupted = self->interrupted_;
    if (!self->answered_) {
      self->pending_ = pending;
    }
  }
  if (interrupted) {
    pending->cancel();
  }
}

void ReadRequest::on_interrupt(fuse_req_t /*request*/, void* self) {
  in_interrupt_callback = true;
  static_cast<ReadRequest*>(self)->shared_from_this()->interrupt();
  in_interrupt_callback = false;
}

void ReadRequest::interrupt() {
  std::shared_ptr<PendingRead> pending;
  {
    const MutexLock lock(mutex_);
    interrupted_ = true;
    pending = pending_;
  }
  if (pending) {
    pending->cancel();
  }
}

void ReadRequest::reply(const Result<std::span<const std::byte>>& bytes) {
  {
    const MutexLock lock(mutex_);
    if (answered_) {
      return;
    }
    answered_ = true;
  }
  if (!in_interrupt_callback) {
    fuse_req_interrupt_func(request_, nullptr, nullptr);
  }
  if (bytes) {
    fuse_reply_buf(request_, reinterpret_cast<const char*>(bytes->data()), bytes->size());
  } else {
    fuse_reply_err(request_, errno_of(bytes.error()));
  }
  // The pending read holds the callback, which holds us.
  std::shared_ptr<PendingRead> done;
  const MutexLock lock(mutex_);
  done.swap(pending_);
}

}  // namespace qcache

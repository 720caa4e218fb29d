#include "core/engine/waiting_reads.h"

#include <utility>

#include "core/base/contain_exceptions.h"

namespace qcache {

void WaitingRead::cancel() {
  if (claim()) {
    forget_(*this);
    callback_(fail(ErrorKind::kInterrupted, "the read was interrupted"));
  }
}

void WaitingReads::add(uint32_t tile, const std::shared_ptr<WaitingRead>& read) {
  by_tile_.emplace(tile, read);
  ++read->missing_;
}

WaitingReads::ByTile WaitingReads::release(const LayoutPlan& plan, uint32_t tile,
                                           const Result<std::shared_ptr<const UnstoredTile>>& made) {
  ByTile released;
  const auto [begin, end] = by_tile_.equal_range(tile);
  for (auto it = begin; it != end;) {
    const auto waiting = it++;
    WaitingRead& read = *waiting->second;
    if (made && *made) {
      read.kept = contain_exceptions("cannot keep what could not be stored", [&]() -> Status {
        read.memory.keep(plan, read.range(), tile, **made);
        return {};
      });
    }
    if (!made || !read.kept || --read.missing_ == 0) {
      released.insert(by_tile_.extract(waiting));
    } else {
      by_tile_.erase(waiting);
    }
  }
  return released;
}

WaitingReads::Reads WaitingReads::forget(const WaitingRead& read) {
  Reads dropped;
  for (auto it = by_tile_.begin(); it != by_tile_.end();) {
    if (it->second.get() == &read) {
      dropped.push_back(std::move(it->second));
      it = by_tile_.erase(it);
    } else {
      ++it;
    }
  }
  return dropped;
}

WaitingReads::ByTile WaitingReads::take_all() {
  return std::exchange(by_tile_, {});
}

}  // namespace qcache

#include "fs/request_gate.h"

#include <algorithm>
#include <cerrno>
#include <exception>

#include "core/base/log.h"

namespace qcache {

unsigned RequestGate::Counts::of(uint64_t key) const {
  const auto entry = std::ranges::find(counts_, key, &std::pair<uint64_t, unsigned>::first);
  return entry == counts_.end() ? 0 : entry->second;
}

void RequestGate::Counts::add(uint64_t key) {
  const auto entry = std::ranges::find(counts_, key, &std::pair<uint64_t, unsigned>::first);
  if (entry == counts_.end()) {
    counts_.emplace_back(key, 1);
  } else {
    ++entry->second;
  }
}

void RequestGate::Counts::remove(uint64_t key) {
  const auto entry = std::ranges::find(counts_, key, &std::pair<uint64_t, unsigned>::first);
  if (--entry->second == 0) {
    *entry = counts_.back();
    counts_.pop_back();
  }
}

void RequestGate::enter(std::shared_ptr<PendingRequest> request, std::string_view model, std::optional<size_t> root,
                        Work work) {
  constexpr size_t kManyWaiting = 64;
  Waiting current{std::move(request), std::hash<std::string_view>()(model), root, std::move(work)};
  if (model.empty()) {
    run(current);
    return;
  }
  std::deque<Waiting> given_up;  // destroyed outside the lock
  {
    const MutexLock lock(mutex_);
    if (!may_enter(current)) {
      if (waiting_.size() >= kManyWaiting) {
        // Callers that were killed leave theirs behind.
        std::deque<Waiting> kept;
        for (Waiting& one : waiting_) {
          (one.request->is_answered() ? given_up : kept).push_back(std::move(one));
        }
        waiting_.swap(kept);
      }
      waiting_.push_back(std::move(current));
      return;
    }
    count_in(current);
  }
  for (;;) {
    run(current);
    const MutexLock lock(mutex_);
    count_out(current);
    if (!take_next(current)) {
      return;
    }
  }
}

void RequestGate::run(Waiting& current) {
  if (!current.request->is_answered()) {  // else its caller did not wait for its turn
    try {
      current.work(current.request);
    } catch (const std::exception& e) {
      spdlog::error("a request failed: {}", e.what());
      if (current.request->claim()) {
        fuse_reply_err(current.request->get(), EIO);
      }
    }
  }
  current.work = nullptr;
  current.request.reset();
}

bool RequestGate::may_enter(const Waiting& waiting) const {
  return inside_ < kInAll && of_model_.of(waiting.model) < kOfOneModel &&
         (!waiting.root || of_root_.of(*waiting.root) < kOfOneRoot);
}

void RequestGate::count_in(const Waiting& waiting) {
  ++inside_;
  of_model_.add(waiting.model);
  if (waiting.root) {
    of_root_.add(*waiting.root);
  }
}

void RequestGate::count_out(const Waiting& waiting) {
  --inside_;
  of_model_.remove(waiting.model);
  if (waiting.root) {
    of_root_.remove(*waiting.root);
  }
}

bool RequestGate::take_next(Waiting& next) {
  for (auto one = waiting_.begin(); one != waiting_.end(); ++one) {
    if (may_enter(*one)) {
      next = std::move(*one);
      waiting_.erase(one);
      count_in(next);
      return true;
    }
  }
  return false;
}

}  // namespace qcache

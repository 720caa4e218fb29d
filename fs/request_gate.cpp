#include "fs/request_gate.h"

#include <utility>

namespace qcache {
namespace {

void add(std::unordered_map<std::string, unsigned>& counts, const std::string& key, int change) {
  const auto entry = counts.try_emplace(key, 0).first;
  entry->second += static_cast<unsigned>(change);
  if (entry->second == 0) {
    counts.erase(entry);
  }
}

unsigned count_of(const std::unordered_map<std::string, unsigned>& counts, const std::string& key) {
  const auto entry = counts.find(key);
  return entry == counts.end() ? 0 : entry->second;
}

}  // namespace

void RequestGate::enter(const std::shared_ptr<PendingRequest>& request, const std::string& model,
                        const std::string& root, std::function<void()> work) {
  constexpr size_t kManyWaiting = 64;
  Waiting current{request, model, root, std::move(work)};
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
    count(current, 1);
  }
  for (;;) {
    current.work();
    current.work = nullptr;
    const MutexLock lock(mutex_);
    count(current, -1);
    if (!take_next(current)) {
      return;
    }
  }
}

bool RequestGate::may_enter(const Waiting& waiting) const {
  return inside_ < kInAll && count_of(of_model_, waiting.model) < kOfOneModel &&
         (waiting.root.empty() || count_of(of_root_, waiting.root) < kOfOneRoot);
}

void RequestGate::count(const Waiting& waiting, int change) {
  inside_ += static_cast<unsigned>(change);
  add(of_model_, waiting.model, change);
  if (!waiting.root.empty()) {
    add(of_root_, waiting.root, change);
  }
}

bool RequestGate::take_next(Waiting& next) {
  for (auto one = waiting_.begin(); one != waiting_.end(); ++one) {
    if (may_enter(*one)) {
      next = std::move(*one);
      waiting_.erase(one);
      count(next, 1);
      return true;
    }
  }
  return false;
}

}  // namespace qcache

#pragma once

#include <cstdint>
#include <functional>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/mutex.h"

namespace qcache {

/// What a fake was told about its calls, and how often each was made. `Call` names their kinds; each call is on a
/// subject, a path or a file, and where `part` is given only calls whose subject contains it are meant.
///
/// Safe for concurrent use; hooks run in the calling thread, without a lock.
template <typename Call, typename Failure>
class FaultRules {
 public:
  /// Fails the nth such call from now (1 is the next), once.
  void fail(Call call, uint64_t nth, Failure failure, const std::string& part) {
    add({call, part, nth, failure, nullptr});
  }
  /// Fails every such call until heal().
  void fail_all(Call call, Failure failure, const std::string& part) {
    add({call, part, std::nullopt, failure, nullptr});
  }
  /// Runs `hook` before the nth such call from now, once; the call then goes on.
  void before(Call call, uint64_t nth, std::function<void()> hook, const std::string& part) {
    add({call, part, nth, std::nullopt, std::move(hook)});
  }
  /// Forgets all of it, but not the counts.
  void heal() {
    const MutexLock lock(mutex_);
    rules_.clear();
  }

  /// Calls of a kind so far, failed ones included.
  [[nodiscard]] uint64_t count(Call call) const {
    const MutexLock lock(mutex_);
    const auto found = counts_.find(call);
    return found == counts_.end() ? 0 : found->second;
  }

  /// For each call of the fake: counts it, runs the hooks that are due and returns the failure that is due.
  [[nodiscard]] std::optional<Failure> enter(Call call, std::string_view subject) {
    std::vector<std::function<void()>> hooks;
    std::optional<Failure> failure;
    {
      const MutexLock lock(mutex_);
      ++counts_[call];
      for (auto rule = rules_.begin(); rule != rules_.end();) {
        const bool counted = rule->call == call && subject.find(rule->part) != std::string_view::npos;
        if (!counted || (rule->calls_left && --*rule->calls_left > 0)) {
          ++rule;
          continue;
        }
        if (rule->hook) {
          hooks.push_back(std::move(rule->hook));
        } else if (!failure) {
          failure = rule->failure;
        }
        rule = rule->calls_left ? rules_.erase(rule) : std::next(rule);
      }
    }
    for (const auto& hook : hooks) {
      hook();
    }
    return failure;
  }

 private:
  struct Rule {
    Call call;
    std::string part;
    std::optional<uint64_t> calls_left;  ///< matching calls until it acts, once; none: it acts on each
    std::optional<Failure> failure;      ///< none: runs the hook instead
    std::function<void()> hook;
  };
  void add(Rule rule) {
    const MutexLock lock(mutex_);
    rules_.push_back(std::move(rule));
  }

  mutable Mutex mutex_;
  std::vector<Rule> rules_ QCACHE_GUARDED_BY(mutex_);
  std::map<Call, uint64_t> counts_ QCACHE_GUARDED_BY(mutex_);
};

}  // namespace qcache

#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>

#include "core/base/mutex.h"
#include "fs/pending_request.h"

namespace qcache {

/// Lets requests to the files of models a few at a time, so that a filesystem which stops keeps a few threads and not
/// all: of one model, of one root that may stop answering, and of all together.
///
/// A request that is let in runs at once, in the thread that brought it; others are kept, and the thread of one that is
/// done goes on with them. Thread-safe.
class RequestGate {
 public:
  static constexpr unsigned kOfOneModel = 4;
  static constexpr unsigned kOfOneRoot = 8;
  static constexpr unsigned kInAll = 48;

  /// `root` is empty where it cannot stop. `work` must not throw.
  void enter(const std::shared_ptr<PendingRequest>& request, const std::string& model, const std::string& root,
             std::function<void()> work) QCACHE_EXCLUDES(mutex_);

 private:
  struct Waiting {
    std::shared_ptr<PendingRequest> request;
    std::string model;
    std::string root;
    std::function<void()> work;
  };
  [[nodiscard]] bool may_enter(const Waiting& waiting) const QCACHE_REQUIRES(mutex_);
  void count(const Waiting& waiting, int change) QCACHE_REQUIRES(mutex_);
  // The next that may enter, counted as inside.
  [[nodiscard]] bool take_next(Waiting& next) QCACHE_REQUIRES(mutex_);

  Mutex mutex_;
  std::unordered_map<std::string, unsigned> of_model_ QCACHE_GUARDED_BY(mutex_);
  std::unordered_map<std::string, unsigned> of_root_ QCACHE_GUARDED_BY(mutex_);
  unsigned inside_ QCACHE_GUARDED_BY(mutex_) = 0;
  std::deque<Waiting> waiting_ QCACHE_GUARDED_BY(mutex_);
};

}  // namespace qcache

#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/mutex.h"
#include "fs/pending_request.h"

namespace qcache {

/// Lets requests to the files of models a few at a time, so that a filesystem which stops keeps a few threads and not
/// all: of one model, of one root that may stop answering, and of all together.
///
/// A request that is let in runs at once, in the thread that brought it; others are kept, and the thread of one that is
/// done goes on with them. One whose work throws fails with EIO. Every lookup of a name comes through here, so being
/// let in allocates nothing. Thread-safe.
class RequestGate {
 public:
  static constexpr unsigned kOfOneModel = 4;
  static constexpr unsigned kOfOneRoot = 8;
  static constexpr unsigned kInAll = 48;

  using Work = std::function<void(const std::shared_ptr<PendingRequest>& request)>;

  /// A request that asks no model's files (`model` is empty) is let in at once, and not counted. `root`: the number of
  /// the root that may stop; none where it cannot.
  void enter(std::shared_ptr<PendingRequest> request, std::string_view model, std::optional<size_t> root, Work work)
      QCACHE_EXCLUDES(mutex_);

 private:
  /// How many of each kind are inside: at most kInAll kinds, and mostly one or two.
  class Counts {
   public:
    Counts() { counts_.reserve(kInAll); }
    [[nodiscard]] unsigned of(uint64_t key) const;
    void add(uint64_t key);
    void remove(uint64_t key);

   private:
    std::vector<std::pair<uint64_t, unsigned>> counts_;
  };
  struct Waiting {
    std::shared_ptr<PendingRequest> request;
    uint64_t model = 0;  // a hash: two models that share it would only share their turns
    std::optional<size_t> root;
    Work work;
  };
  [[nodiscard]] bool may_enter(const Waiting& waiting) const QCACHE_REQUIRES(mutex_);
  void count_in(const Waiting& waiting) QCACHE_REQUIRES(mutex_);
  void count_out(const Waiting& waiting) QCACHE_REQUIRES(mutex_);
  // The next that may enter, counted as inside.
  [[nodiscard]] bool take_next(Waiting& next) QCACHE_REQUIRES(mutex_);
  static void run(Waiting& current);

  Mutex mutex_;
  Counts of_model_ QCACHE_GUARDED_BY(mutex_);
  Counts of_root_ QCACHE_GUARDED_BY(mutex_);
  unsigned inside_ QCACHE_GUARDED_BY(mutex_) = 0;
  std::deque<Waiting> waiting_ QCACHE_GUARDED_BY(mutex_);
};

}  // namespace qcache

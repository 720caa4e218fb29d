#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "core/base/env.h"
#include "core/base/mount_info.h"
#include "core/base/mutex.h"
#include "core/engine/helper_threads.h"
#include "core/model/model_finder.h"

namespace qcache {

/// One folder of models, asked in such a way that nobody waits without end where its filesystem stops: then what was
/// last seen of it counts.
///
/// A walk runs in a thread of its own. All who ask meanwhile share it where it takes long, and it counts for a second
/// from its end; one that is quick is never remembered. A name is looked up by the caller himself where the folder lies
/// on a filesystem of this machine, else by helper threads. Thread-safe; held by shared pointers, because a helper that
/// hangs outlives everything.
class ModelRoot : public std::enable_shared_from_this<ModelRoot> {
 public:
  /// `folders`: what may be read, of all roots.
  ModelRoot(Env& env, std::string path, std::shared_ptr<MountWatch> mounts, SourceFolders folders);

  struct Seen {
    std::shared_ptr<const RootWalk> walk;  ///< null where there has been none
    bool answered = true;                  ///< false: it stopped, and this is how it was before
  };
  /// The folders as they are now. Waits for as long as the walk moves.
  [[nodiscard]] Seen walk() QCACHE_EXCLUDES(mutex_);
  /// Begins a walk, so that lookups soon know what only a walk tells.
  void begin_walk() QCACHE_EXCLUDES(mutex_);

  struct Answer {
    RootLookup lookup;
    bool answered = true;  ///< as in Seen
    bool walked = false;   ///< a walk has ended, ever
  };
  /// One name, as look_up_in_root().
  [[nodiscard]] Answer look_up(const std::string& name) QCACHE_EXCLUDES(mutex_);
  /// Waits for a folder that has stopped, for a moment after it did. Whether it goes on.
  [[nodiscard]] bool wait_until_it_goes_on() QCACHE_EXCLUDES(mutex_);

  /// For how long it has not answered, where it does not.
  [[nodiscard]] std::optional<std::chrono::seconds> stopped_for() const QCACHE_EXCLUDES(mutex_);
  /// Ends its threads, but those that hang. It answers as last seen from then on.
  void stop();
  /// Whether its filesystem is one that may stop.
  [[nodiscard]] bool may_stop() const { return mounts_->now()->may_stop(path_); }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  using Clock = std::chrono::steady_clock;

  void begin() QCACHE_REQUIRES(mutex_);
  [[nodiscard]] bool moves() QCACHE_REQUIRES(mutex_);
  [[nodiscard]] Answer as_last_seen(const std::string& name) const QCACHE_REQUIRES(mutex_);

  Env& env_;
  const std::string path_;
  const std::shared_ptr<MountWatch> mounts_;
  const SourceFolders folders_;
  std::atomic<uint64_t> steps_{0};

  mutable Mutex mutex_;
  CondVar changed_;
  std::shared_ptr<const RootWalk> last_ QCACHE_GUARDED_BY(mutex_);
  bool walking_ QCACHE_GUARDED_BY(mutex_) = false;
  uint64_t begun_ QCACHE_GUARDED_BY(mutex_) = 0;  // walks
  uint64_t ended_ QCACHE_GUARDED_BY(mutex_) = 0;
  Clock::time_point began_at_ QCACHE_GUARDED_BY(mutex_);
  Clock::time_point ended_at_ QCACHE_GUARDED_BY(mutex_);
  uint64_t steps_seen_ QCACHE_GUARDED_BY(mutex_) = 0;
  Clock::time_point moved_at_ QCACHE_GUARDED_BY(mutex_);

  // Lookups by helpers that took too long and have not returned, and what came of those that did.
  unsigned late_ QCACHE_GUARDED_BY(mutex_) = 0;
  Clock::time_point late_since_ QCACHE_GUARDED_BY(mutex_);
  std::unordered_map<std::string, std::optional<FoundModel>> told_late_ QCACHE_GUARDED_BY(mutex_);

  HelperThreads walker_{1};
  HelperThreads askers_{4};
};

}  // namespace qcache

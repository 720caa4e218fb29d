#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "core/base/mutex.h"
#include "core/engine/filling_artifact.h"

namespace qcache {

/// Has a file sealed that is complete in this process. REQUIRES: artifact.complete().
///
/// What came of it: kDone, by this process or, meanwhile, by another one, or it was dropped: nobody is to find the
/// artifact any more; kElsewhere: another process is about it, and should that die it is our turn.
enum class SealOutcome { kDoneHere, kDoneElsewhere, kBusyElsewhere };
/// `record` gets what was written where it is kDoneHere. Fails as FillingArtifact::seal(). Any thread.
Result<SealOutcome> try_to_seal(Store& store, FillingArtifact& artifact, const KeepGoing& keep_going,
                                std::optional<Record>* record = nullptr);

/// What a Sealer tells its owner, from its thread with no lock held.
class SealObserver {
 public:
  virtual ~SealObserver() = default;
  /// The file is sealed, or was dropped: nobody is to find the artifact any more.
  virtual void on_sealed(const std::shared_ptr<FillingArtifact>& artifact, SealOutcome outcome) = 0;
  virtual void on_seal_failure(const std::shared_ptr<FillingArtifact>& artifact, const Error& error) = 0;
};

/// Seals the complete files of one process, one after another in a pool of its own, each once its readers are quiet.
///
/// What fails is tried again after a pause that doubles, for as long as somebody uses the file and a little longer.
/// What another process is sealing is tried again until it is done. Thread-safe.
class Sealer {
 public:
  using Time = FillingArtifact::Time;
  static constexpr std::chrono::seconds kFirstPause{1};
  static constexpr std::chrono::seconds kLongestPause{60};

  /// What is given must outlive it, and the pool end before it.
  Sealer(Env& env, Store& store, WorkerPool& pool, SealObserver& observer)
      : env_(env), store_(store), pool_(pool), observer_(observer) {}

  /// REQUIRES: the artifact is complete. One that is known already begins afresh.
  void add(std::shared_ptr<FillingArtifact> artifact) QCACHE_EXCLUDES(mutex_);
  /// Starts what is due, and gives up what is hopeless. To be called every few hundred milliseconds.
  void tick() QCACHE_EXCLUDES(mutex_);
  /// A reader has left: starts what was only held back for him.
  void reader_left() QCACHE_EXCLUDES(mutex_);
  /// Begins nothing any more, and ends what goes on as soon as it can be ended.
  void stop() QCACHE_EXCLUDES(mutex_);

 private:
  struct Entry {
    std::shared_ptr<FillingArtifact> artifact;
    Time complete_since{};
    Time not_before{};
    std::chrono::seconds pause = kFirstPause;
    bool failed = false;
    bool runs = false;  // a job of the pool is about it
  };
  using Entries = std::vector<std::shared_ptr<Entry>>;

  [[nodiscard]] Time now() const { return Time(env_.monotonic_ns()); }
  void start_due(Time at) QCACHE_REQUIRES(mutex_);
  void run(const std::shared_ptr<Entry>& entry) QCACHE_EXCLUDES(mutex_);

  Env& env_;
  Store& store_;
  WorkerPool& pool_;
  SealObserver& observer_;
  Mutex mutex_;  // taken before an artifact's
  Entries entries_ QCACHE_GUARDED_BY(mutex_);
  bool stopping_ QCACHE_GUARDED_BY(mutex_) = false;
};

}  // namespace qcache

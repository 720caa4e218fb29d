#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "core/base/mutex.h"
#include "core/engine/filling_artifact.h"

namespace qcache {

/// What came of bringing a file a step further to its end.
enum class SealOutcome {
  kDone,
  /// Another process has sealed it meanwhile, or it was dropped: nobody is to find the artifact any more.
  kGone,
  /// Another process is about it; should that die it is our turn.
  kBusyElsewhere,
};

/// Completes a file whose tiles are all made by this process, and has it sealed, in the calling thread. REQUIRES:
/// artifact.all_made(). `record` gets what was written where it is kDone. Fails as FillingArtifact does.
Result<SealOutcome> try_to_seal(Store& store, FillingArtifact& artifact, std::optional<Record>& record);

/// What a Sealer tells its owner, from a thread of a pool with no lock held.
class SealObserver {
 public:
  virtual ~SealObserver() = default;
  /// Nobody is to find the artifact any more. `record`: where this process has sealed it, what was recorded; null where
  /// another has, or it was dropped.
  virtual void on_sealed(const std::shared_ptr<FillingArtifact>& artifact, const Record* record) = 0;
  virtual void on_seal_failure(const std::shared_ptr<FillingArtifact>& artifact, const Error& error) = 0;
};

/// Brings the files of one process to their end whose tiles are all made: completes each at once, and seals it, one
/// after another, when its readers are quiet. Hashing is for an idle thread, where nobody waits for it; the record is
/// committed by another, as who holds locks must not be kept from the processor.
///
/// What fails is tried again after a pause that doubles, for as long as somebody uses the file and a little longer; a
/// file that is damaged is not. What another process is about is tried again until it is done. Thread-safe.
class Sealer {
 public:
  using Time = FillingArtifact::Time;
  static constexpr std::chrono::seconds kFirstPause{1};
  static constexpr std::chrono::seconds kLongestPause{60};

  /// What is given must outlive it, and the workshop end before it.
  Sealer(Env& env, Store& store, Workshop& workshop, SealObserver& observer)
      : env_(env), store_(store), workshop_(workshop), observer_(observer) {}

  /// REQUIRES: the artifact's tiles are all made. One that is known already begins afresh.
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
    Time all_made_since{};
    Time not_before{};
    std::chrono::seconds pause = kFirstPause;
    bool failed = false;
    bool runs = false;       // a job of a pool is about it
    bool has_right = false;  // to seal, from hashing to the commit; of the job that runs
  };
  using Entries = std::vector<std::shared_ptr<Entry>>;

  [[nodiscard]] Time now() const { return Time(env_.monotonic_ns()); }
  void start_due(Time at) QCACHE_REQUIRES(mutex_);
  [[nodiscard]] bool may_go_on(const FillingArtifact& artifact) QCACHE_EXCLUDES(mutex_);
  // The steps, each a job.
  void complete(const std::shared_ptr<Entry>& entry) QCACHE_EXCLUDES(mutex_);
  void hash(const std::shared_ptr<Entry>& entry) QCACHE_EXCLUDES(mutex_);
  void commit(const std::shared_ptr<Entry>& entry, const HashedFile& hashed) QCACHE_EXCLUDES(mutex_);
  // What follows from a step's end; `is_last`: nothing comes after it. `record`: as on_sealed().
  void ended(const std::shared_ptr<Entry>& entry, const Result<SealOutcome>& outcome, bool is_last,
             const Record* record = nullptr) QCACHE_EXCLUDES(mutex_);

  Env& env_;
  Store& store_;
  Workshop& workshop_;
  SealObserver& observer_;
  Mutex mutex_;  // taken before an artifact's
  Entries entries_ QCACHE_GUARDED_BY(mutex_);
  bool stopping_ QCACHE_GUARDED_BY(mutex_) = false;
};

}  // namespace qcache

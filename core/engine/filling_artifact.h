#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base/mutex.h"
#include "core/engine/artifact.h"
#include "core/engine/artifact_name.h"
#include "core/engine/assembly.h"
#include "core/engine/quality_probe.h"
#include "core/engine/surveys.h"
#include "core/engine/tile_maker.h"
#include "core/engine/tile_schedule.h"
#include "core/engine/unstored_tiles.h"
#include "core/engine/waiting_reads.h"
#include "core/engine/workshop.h"
#include "core/store/record.h"
#include "core/store/store.h"

namespace qcache {

class FillingArtifact;

/// What a filling artifact tells its owner. Called from worker threads with no lock held.
class FillingObserver {
 public:
  virtual ~FillingObserver() = default;
  /// Every tile is there, so that the file can be completed and sealed. Told again where somebody
  /// warms a file of which all are.
  virtual void on_all_made(const std::shared_ptr<FillingArtifact>& artifact) = 0;
  virtual void on_failure(const std::shared_ptr<FillingArtifact>& artifact, const Error& error) = 0;
};

/// A file being made, in one process: reads wait for the tiles they need, which a TileSchedule puts in order, a
/// TileMaker makes in a Workshop's threads, and an Assembly turns into bytes.
///
/// Always holds: a tile that is ready was hashed by this process; a reader is woken exactly once. Everything that can
/// block runs in the pool, so calls return quickly. Thread-safe. A failed tile fails the reads that wait for it, and is
/// tried again by the next read. One that cannot be stored, because the disk is full, is delivered from memory and made
/// again by a later read: a program that has mapped the file would die of a failure.
class FillingArtifact final : public Artifact, public std::enable_shared_from_this<FillingArtifact> {
 public:
  using Time = TileSchedule::Time;

  /// `source` and `filling` belong to this artifact from now on; the other references must outlive it.
  FillingArtifact(ArtifactName name, std::shared_ptr<const LayoutPlan> plan, std::unique_ptr<SourceReader> source,
                  std::shared_ptr<FillingFile> filling, Env& env, Workshop& workshop, Stats& stats,
                  FillingObserver& observer);

  [[nodiscard]] const LayoutPlan& plan() const { return *plan_; }
  [[nodiscard]] const Sha256Digest& recipe() const override { return filling_->key().recipe; }
  [[nodiscard]] uint64_t size_bytes() const override { return plan_->size_bytes(); }
  [[nodiscard]] int complete_fd() const override QCACHE_EXCLUDES(mutex_);
  std::shared_ptr<PendingRead> read(ByteRange range, ReadIntent intent, ReadCallback callback) override
      QCACHE_EXCLUDES(mutex_);

  [[nodiscard]] const ArtifactName& name() const { return name_; }
  [[nodiscard]] const std::string& model_path() const { return source_->model().path; }
  [[nodiscard]] FillingFile& filling() { return *filling_; }
  [[nodiscard]] const FillingFile& filling() const { return *filling_; }
  [[nodiscard]] uint64_t source_device() const { return source_->device(); }

  /// Counts opens. The background fill stops when the count is back at zero and no warm is asked for.
  void add_opener() QCACHE_EXCLUDES(mutex_);
  void remove_opener() QCACHE_EXCLUDES(mutex_);
  /// Asks for the whole file, opened or not, until it is complete or has failed; or takes that back.
  void set_warm(bool warm) QCACHE_EXCLUDES(mutex_);
  /// A program is about to load the file: makes it ahead, for as long as Readers says.
  void expect_reader() QCACHE_EXCLUDES(mutex_);
  /// For a program that loads a file that was announced: after how long to ask again, as the rest is made soon, and a
  /// complete file is read faster; 0 where it is complete; nothing where it is not worth waiting for.
  [[nodiscard]] std::optional<std::chrono::nanoseconds> load_comes_in() const QCACHE_EXCLUDES(mutex_);
  /// Starts background work that has become due. Called every few hundred milliseconds by the engine.
  void tick() QCACHE_EXCLUDES(mutex_);

  /// Share of the tiles that exist on disk, made by this process or another, 0..1.
  [[nodiscard]] double progress() const;
  [[nodiscard]] bool in_use() const QCACHE_EXCLUDES(mutex_);
  /// Whether it is being filled in the background now.
  [[nodiscard]] bool fills() const QCACHE_EXCLUDES(mutex_);
  /// Whether every tile is there, checked by this process.
  [[nodiscard]] bool all_made() const QCACHE_EXCLUDES(mutex_);
  /// Whether somebody warms the file, and waits for it to be sealed.
  [[nodiscard]] bool seals_at_once() const QCACHE_EXCLUDES(mutex_);
  /// Whether a reader has work that sealing the file, all made since then, would disturb.
  [[nodiscard]] bool holds_back_sealing(Time all_made_since) const QCACHE_EXCLUDES(mutex_);
  /// Milliseconds since the last reader or warm request left; 0 while in use.
  [[nodiscard]] int64_t idle_ms() const QCACHE_EXCLUDES(mutex_);
  /// Whether its warming was taken back, and nobody has opened it since.
  [[nodiscard]] bool is_called_off() const QCACHE_EXCLUDES(mutex_);
  /// The last failure: of a tile, until all that failed succeed, or of sealing; until a new reader or warm request
  /// starts afresh.
  [[nodiscard]] std::optional<Error> failure() const QCACHE_EXCLUDES(mutex_);

  /// Makes the file complete: every byte is in place and checked, and nobody writes any from then on, so that it may be
  /// handed to the kernel (complete_fd()). kCorrupt where another process had done so before and what it wrote is not
  /// there; else as Env. Nothing is left to do where it was done here before. REQUIRES: all_made(), the right to seal.
  Status set_complete() QCACHE_EXCLUDES(mutex_);
  /// When set_complete() was done, by the wall clock; 0: not yet. Tells one complete state of a file from the next.
  [[nodiscard]] int64_t completed_ns() const QCACHE_EXCLUDES(mutex_);

  /// Adds the digests that the tiles' marks lack, and has `store` hash the rest and sync the file: up to seconds. Then
  /// the record is committed, which takes a moment. Fail as the Store's; kCorrupt also where a tile has not the bytes
  /// that were made. REQUIRES: set_complete(), and the right to seal for both.
  Result<HashedFile> prepare_seal(Store& store, const KeepGoing& keep_going);
  Result<std::optional<Record>> commit_seal(Store& store, const HashedFile& hashed);
  /// Measures how near the weights in a complete file are to their source; does not keep this.
  [[nodiscard]] MeasureQuality quality_probe() const { return qcache::quality_probe(env_, plan_, source_, surveys_); }
  /// The file could not be sealed for this reason.
  void note_seal_failure(const Error& error) QCACHE_EXCLUDES(mutex_);

  /// The file's names are gone, so it can never be sealed: from now on only what its readers ask for is made.
  void drop() QCACHE_EXCLUDES(mutex_);
  [[nodiscard]] bool dropped() const QCACHE_EXCLUDES(mutex_);

  /// Fails all reads that wait, drops queued work; for shutting down.
  void abandon() QCACHE_EXCLUDES(mutex_);

 private:
  // The longest that an announced load is worth waiting for, and how often who waits looks.
  static constexpr std::chrono::seconds kWorthWaiting{2};
  static constexpr std::chrono::milliseconds kLookInterval{5};
  // Without a read, and the unstored tiles are given up.
  static constexpr std::chrono::seconds kUnstoredKept{10};

  [[nodiscard]] Time now() const { return Time(env_.monotonic_ns()); }
  // Whether the range meets the trailer of a group that is not all ready.
  [[nodiscard]] bool needs_whole_group(ByteRange range) const QCACHE_REQUIRES(mutex_);
  void start_read_ahead(const std::vector<TileSpan>& needed) QCACHE_REQUIRES(mutex_);
  // Queues a tile; one that is queued already is queued again (whichever job runs first makes it).
  void request(uint32_t tile, Priority priority) QCACHE_REQUIRES(mutex_);
  // For what nobody waits for: false where there is no memory to queue it.
  bool try_request(uint32_t tile, Priority priority) QCACHE_REQUIRES(mutex_);
  void run_tile(uint32_t tile, Priority priority) QCACHE_EXCLUDES(mutex_);
  [[nodiscard]] WorkerPool& pool_for(uint32_t tile) const;
  void pump_fill() QCACHE_REQUIRES(mutex_);
  // Forgets what went wrong.
  void start_afresh() QCACHE_REQUIRES(mutex_);
  // Whether the caller is to call on_all_made(), once it has let go of the lock.
  [[nodiscard]] bool is_news_that_all_made() QCACHE_REQUIRES(mutex_);
  void forget(const WaitingRead& read) QCACHE_EXCLUDES(mutex_);
  // Calls back with the bytes of a range whose tiles are all ready.
  void deliver(ByteRange range, const FromMemory& memory, const ReadCallback& callback) const;
  // Adds the digests that the marks of tiles made for readers lack.
  Status add_digests(const KeepGoing& keep_going) QCACHE_EXCLUDES(mutex_);
  [[nodiscard]] TilePlaces places_of_tiles() const;
  [[nodiscard]] Record record_draft() const;

  const ArtifactName name_;
  const std::shared_ptr<const LayoutPlan> plan_;
  const std::shared_ptr<const SourceReader> source_;
  const std::shared_ptr<FillingFile> filling_;
  Env& env_;
  Workshop& workshop_;
  Stats& stats_;
  FillingObserver& observer_;
  const std::shared_ptr<Surveys> surveys_;
  const TileMaker maker_;
  const Assembly assembly_;
  std::atomic<int64_t> last_read_ns_ = 0;

  mutable Mutex mutex_;  // taken before the pool's; see docs/ARCHITECTURE.md
  TileSchedule schedule_ QCACHE_GUARDED_BY(mutex_);
  WaitingReads waiting_ QCACHE_GUARDED_BY(mutex_);
  // Where the disk was full: the tiles made last.
  UnstoredTiles unstored_ QCACHE_GUARDED_BY(mutex_);
  // When a program was last announced, and how many tiles were ready then.
  Time announced_ QCACHE_GUARDED_BY(mutex_){};
  uint32_t ready_when_announced_ QCACHE_GUARDED_BY(mutex_) = 0;
  bool told_all_made_ QCACHE_GUARDED_BY(mutex_) = false;
  bool seal_at_once_ QCACHE_GUARDED_BY(mutex_) = false;  // somebody warms it
  UniqueFd complete_ QCACHE_GUARDED_BY(mutex_);          // never changes once it is there
  int64_t completed_ns_ QCACHE_GUARDED_BY(mutex_) = 0;
  std::optional<Error> seal_failure_ QCACHE_GUARDED_BY(mutex_);
};

}  // namespace qcache

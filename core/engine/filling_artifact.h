#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base/mutex.h"
#include "core/engine/artifact.h"
#include "core/engine/artifact_name.h"
#include "core/engine/quality_probe.h"
#include "core/engine/read_ahead.h"
#include "core/engine/readers.h"
#include "core/engine/surveys.h"
#include "core/engine/tile_maker.h"
#include "core/engine/unstored_tiles.h"
#include "core/engine/workshop.h"
#include "core/store/record.h"
#include "core/store/store.h"

namespace qcache {

class FillingArtifact;

/// What a filling artifact tells its owner. Called from worker threads with no lock held.
class FillingObserver {
 public:
  virtual ~FillingObserver() = default;
  /// Every tile is present, and it is time to seal the file.
  virtual void on_complete(const std::shared_ptr<FillingArtifact>& artifact) = 0;
  virtual void on_failure(const std::shared_ptr<FillingArtifact>& artifact, const Error& error) = 0;
};

/// A file being made, in one process: which tiles this process may serve, who waits for which, and what is made next.
///
/// Always holds: a tile is made by at most one thread at a time; a tile that is kReady was hashed by this process; a
/// reader is woken exactly once. Everything that can block runs in the pool, so calls return quickly.
/// The whole file is filled in the background, in file order, while somebody asked to warm it, is about to load it, or
/// has had it open for a moment (see Readers); no longer once its names are gone. Thread-safe. A failed tile fails the
/// reads that wait for it, and is tried again by the next read. One that cannot be stored, because the disk is full, is
/// delivered from memory and made again by a later read: a program that has mapped the file would die of a failure.
class FillingArtifact final : public Artifact, public std::enable_shared_from_this<FillingArtifact> {
 public:
  /// `source` and `filling` belong to this artifact from now on; the other references must outlive it.
  FillingArtifact(ArtifactName name, std::shared_ptr<const LayoutPlan> plan, std::unique_ptr<SourceReader> source,
                  std::shared_ptr<FillingFile> filling, Env& env, Workshop& workshop, Stats& stats,
                  FillingObserver& observer);

  [[nodiscard]] const LayoutPlan& plan() const { return *plan_; }
  [[nodiscard]] const Sha256Digest& recipe() const override { return filling_->key().recipe; }
  [[nodiscard]] uint64_t size_bytes() const override { return plan_->size_bytes(); }
  [[nodiscard]] int sealed_fd() const override { return -1; }
  std::shared_ptr<PendingRead> read(ByteRange range, ReadIntent intent, ReadCallback callback) override
      QCACHE_EXCLUDES(mutex_);

  [[nodiscard]] const ArtifactName& name() const { return name_; }
  [[nodiscard]] const std::string& model_path() const { return source_->model().path; }
  [[nodiscard]] FillingFile& filling() { return *filling_; }
  [[nodiscard]] uint64_t source_device() const { return source_->device(); }

  /// Counts opens. The background fill stops when the count is back at zero and no warm is asked for.
  void add_opener() QCACHE_EXCLUDES(mutex_);
  void remove_opener() QCACHE_EXCLUDES(mutex_);
  /// Asks for the whole file, opened or not, until it is complete or has failed; or takes that back.
  void set_warm(bool warm) QCACHE_EXCLUDES(mutex_);
  /// A program is about to load the file: makes it ahead, for as long as Readers says.
  void expect_reader() QCACHE_EXCLUDES(mutex_);
  /// Starts background work that has become due. Called every few hundred milliseconds by the engine.
  void tick() QCACHE_EXCLUDES(mutex_);

  /// Share of the tiles that exist on disk, made by this process or another, 0..1.
  [[nodiscard]] double progress() const;
  [[nodiscard]] bool in_use() const QCACHE_EXCLUDES(mutex_);
  [[nodiscard]] bool warming() const QCACHE_EXCLUDES(mutex_);
  /// Whether it is being filled in the background now.
  [[nodiscard]] bool fills() const QCACHE_EXCLUDES(mutex_);
  [[nodiscard]] bool complete() const QCACHE_EXCLUDES(mutex_);
  /// Milliseconds since the last reader or warm request left; 0 while in use.
  [[nodiscard]] int64_t idle_ms() const QCACHE_EXCLUDES(mutex_);
  /// Whether its warming was taken back, and nobody has opened it since.
  [[nodiscard]] bool is_called_off() const QCACHE_EXCLUDES(mutex_);
  /// The last failure: of a tile, until all that failed succeed, or of sealing; until a new reader or warm request
  /// starts afresh.
  [[nodiscard]] std::optional<Error> failure() const QCACHE_EXCLUDES(mutex_);

  /// Writes every byte that no tile covers: headers, gaps, constants, trailers. REQUIRES: complete().
  Status write_static_bytes();
  /// Completes the file: the tiles' digests, the static bytes; measures the quality of its weights (a failure of that
  /// is only logged), and has `store` seal it. Fails and returns as Store::seal(); a tile that cannot be hashed or made
  /// again counts as not made from then on. REQUIRES: complete(), and the right to seal.
  Result<std::optional<Record>> seal(Store& store, const KeepGoing& keep_going = {});

  /// The file could not be sealed for this reason: it is announced again after a while, longer each time.
  void sealing_failed(const Error& error) QCACHE_EXCLUDES(mutex_);

  /// The file's names are gone, so it can never be sealed: from now on only what its readers ask for is made.
  void drop() QCACHE_EXCLUDES(mutex_);
  [[nodiscard]] bool dropped() const QCACHE_EXCLUDES(mutex_);

  /// Fails all reads that wait, drops queued work; for shutting down.
  void abandon() QCACHE_EXCLUDES(mutex_);

 private:
  static constexpr std::chrono::seconds kFirstSealPause{1};
  static constexpr std::chrono::seconds kLongestSealPause{60};
  static constexpr std::chrono::seconds kFirstFillPause{2};
  static constexpr std::chrono::seconds kLongestFillPause{60};
  // Without a read, and the unstored tiles are given up.
  static constexpr std::chrono::seconds kUnstoredKept{10};

  enum class TileState : uint8_t { kAbsent, kQueued, kMaking, kReady };
  class Waiter;
  using Waiters = std::multimap<uint32_t, std::shared_ptr<Waiter>>;  // by a tile that they wait for

  // Whether the range meets the trailer of a group that is not all ready.
  [[nodiscard]] bool needs_whole_group(ByteRange range) const QCACHE_REQUIRES(mutex_);
  // The tiles of `needed` that are not ready, each once.
  [[nodiscard]] std::vector<uint32_t> missing_tiles(const std::vector<TileSpan>& needed) const QCACHE_REQUIRES(mutex_);
  void start_read_ahead(const std::vector<TileSpan>& needed) QCACHE_REQUIRES(mutex_);
  // Queues a tile; one that is queued already is queued again (whichever job runs first makes it).
  void request(uint32_t tile, Priority priority) QCACHE_REQUIRES(mutex_);
  // For what nobody waits for: false where there is no memory to queue it.
  bool try_request(uint32_t tile, Priority priority) QCACHE_REQUIRES(mutex_);
  void run_tile(uint32_t tile, Priority priority) QCACHE_EXCLUDES(mutex_);
  [[nodiscard]] WorkerPool& pool_for(uint32_t tile) const;
  [[nodiscard]] bool still_wanted(uint32_t tile, Priority priority) const QCACHE_REQUIRES(mutex_);
  [[nodiscard]] bool fill_wanted() const QCACHE_REQUIRES(mutex_);
  void pump_fill() QCACHE_REQUIRES(mutex_);
  void note_success(uint32_t tile) QCACHE_REQUIRES(mutex_);
  void forget_failures() QCACHE_REQUIRES(mutex_);
  // Forgets what went wrong.
  void start_afresh() QCACHE_REQUIRES(mutex_);
  void set_state(uint32_t tile, TileState state) QCACHE_REQUIRES(mutex_);
  // Takes the waiters that a tile's end (good or bad) lets go. Throws nothing.
  Waiters release_waiters(uint32_t tile, const Result<std::shared_ptr<const UnstoredTile>>& made)
      QCACHE_REQUIRES(mutex_);
  // What is to be said and tried again of a tile that was not made, or not stored. Whether that is news.
  bool note_failure(uint32_t tile, const Error& error, bool unstored) QCACHE_REQUIRES(mutex_);
  // Whether the caller is to call on_complete(), once it has let go of the lock.
  [[nodiscard]] bool announce_due() QCACHE_REQUIRES(mutex_);
  void forget(const Waiter& waiter) QCACHE_EXCLUDES(mutex_);
  // Calls back with the bytes of a range whose tiles are all ready.
  void deliver(ByteRange range, const FromMemory& memory, const ReadCallback& callback) const;
  Status assemble(ByteRange range, const FromMemory& memory, std::span<std::byte> out) const;
  // Adds the digests that the marks of tiles made for readers lack.
  Status add_digests(const KeepGoing& keep_going) QCACHE_EXCLUDES(mutex_);
  [[nodiscard]] Result<uint32_t> stored_crc(uint32_t group, uint32_t stored, const FromMemory& memory) const;
  Result<uint32_t> crc_of_file(ByteRange range, const FromMemory& memory) const;
  [[nodiscard]] Record record_draft() const;
  [[nodiscard]] Result<std::vector<std::byte>> trailer(const Piece& piece, const FromMemory& memory) const;

  const ArtifactName name_;
  const std::shared_ptr<const LayoutPlan> plan_;
  const std::unique_ptr<SourceReader> source_;
  const std::shared_ptr<FillingFile> filling_;
  Env& env_;
  Workshop& workshop_;
  Stats& stats_;
  FillingObserver& observer_;
  Surveys surveys_;
  const TileMaker maker_;
  std::atomic<int64_t> last_read_ns_ = 0;

  mutable Mutex mutex_;  // taken before the pool's; see docs/ARCHITECTURE.md
  std::vector<TileState> tiles_ QCACHE_GUARDED_BY(mutex_);
  uint32_t ready_ QCACHE_GUARDED_BY(mutex_) = 0;
  uint32_t absent_ QCACHE_GUARDED_BY(mutex_);
  Waiters waiters_ QCACHE_GUARDED_BY(mutex_);
  ReadAhead read_ahead_ QCACHE_GUARDED_BY(mutex_);
  Readers readers_ QCACHE_GUARDED_BY(mutex_);
  bool warm_ QCACHE_GUARDED_BY(mutex_) = false;
  bool called_off_ QCACHE_GUARDED_BY(mutex_) = false;
  bool abandoned_ QCACHE_GUARDED_BY(mutex_) = false;
  bool dropped_ QCACHE_GUARDED_BY(mutex_) = false;
  bool announced_ QCACHE_GUARDED_BY(mutex_) = false;
  std::optional<std::chrono::steady_clock::time_point> complete_since_ QCACHE_GUARDED_BY(mutex_);
  std::chrono::steady_clock::time_point last_use_ QCACHE_GUARDED_BY(mutex_);
  uint32_t fill_cursor_ QCACHE_GUARDED_BY(mutex_) = 0;
  uint32_t fill_in_flight_ QCACHE_GUARDED_BY(mutex_) = 0;
  // The tiles whose last try failed, how many those are, and the last reason.
  std::vector<bool> failed_ QCACHE_GUARDED_BY(mutex_);
  uint32_t failures_ QCACHE_GUARDED_BY(mutex_) = 0;
  std::optional<Error> failure_ QCACHE_GUARDED_BY(mutex_);
  // Where the disk was full: the tiles made last, and when the background fill looks for room again.
  UnstoredTiles unstored_ QCACHE_GUARDED_BY(mutex_);
  std::optional<std::chrono::steady_clock::time_point> fill_again_ QCACHE_GUARDED_BY(mutex_);
  std::chrono::seconds fill_pause_ QCACHE_GUARDED_BY(mutex_) = kFirstFillPause;
  std::optional<Error> seal_failure_ QCACHE_GUARDED_BY(mutex_);
  std::chrono::steady_clock::time_point seal_again_ QCACHE_GUARDED_BY(mutex_);
  std::chrono::seconds seal_pause_ QCACHE_GUARDED_BY(mutex_) = kFirstSealPause;
};

}  // namespace qcache

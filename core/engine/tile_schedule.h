#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

#include "core/base/result.h"
#include "core/engine/read_ahead.h"
#include "core/engine/readers.h"
#include "core/engine/worker_pool.h"
#include "core/layout/layout_plan.h"

namespace qcache {

/// Which tiles of one file are to be made, in which order, and for how long: from what is there, who has the file open
/// and how it is read, who asked for all of it, and what failed.
///
/// Always holds: a tile is being made by one job at most; whoever queues jobs as this says queues every tile that is
/// wanted. The whole file is filled in file order while somebody asked to warm it, is about to load it, or has had it
/// open for a moment (see Readers); not after a failure, until its readers or a warm request begin afresh, or, where
/// the disk was full, after a pause that doubles. Knows neither threads nor files, and the time is an argument: not
/// synchronized.
class TileSchedule {
 public:
  using Time = Readers::Time;

  static constexpr std::chrono::seconds kFirstFillPause{2};
  static constexpr std::chrono::seconds kLongestFillPause{60};

  TileSchedule(uint32_t tiles, Time now);

  // --- what is there ----------------------------------------------------------------------------------------------
  [[nodiscard]] bool all_ready() const { return ready_ == tiles_.size(); }
  [[nodiscard]] uint32_t ready_count() const { return ready_; }
  /// The tiles of `needed` that are not ready, each once.
  [[nodiscard]] std::vector<uint32_t> missing(const std::vector<TileSpan>& needed) const;
  /// A tile that was ready proved not to be.
  void lost(uint32_t tile) { set(tile, State::kAbsent); }

  // --- jobs -------------------------------------------------------------------------------------------------------
  // A tile that is wanted becomes a job of a pool; one that is queued may be queued again, with another priority:
  // whichever job runs first makes it.

  /// Whether a job for the tile makes sense: it is neither there nor being made.
  [[nodiscard]] bool is_open(uint32_t tile) const {
    return tiles_[tile] == State::kAbsent || tiles_[tile] == State::kQueued;
  }
  [[nodiscard]] bool is_absent(uint32_t tile) const { return tiles_[tile] == State::kAbsent; }
  /// A job was queued for the tile. REQUIRES: is_open(tile).
  void queued(uint32_t tile, Priority priority);
  /// A job begins; false where it has nothing to do any more. `waited_for`: a read waits for the tile.
  [[nodiscard]] bool begin(uint32_t tile, Priority priority, bool waited_for, Time now);
  /// A job that has begun ends well.
  void made(uint32_t tile, Priority priority);
  /// It ends badly; `unstored`: the tile was made, and the disk has no room for it. Whether that is news.
  bool failed(uint32_t tile, Priority priority, const Error& error, bool unstored, Time now);

  /// The tiles to make in advance after a read that needed `read`, possibly none.
  [[nodiscard]] TileSpan after_read(TileSpan read, Time now);
  /// The next tile of the background fill, where one is wanted and fewer than `at_once` are under way.
  [[nodiscard]] std::optional<uint32_t> next_to_fill(unsigned at_once, Time now);

  // --- who wants it -----------------------------------------------------------------------------------------------
  /// `unseen`: its reads are not told by after_read().
  void add_reader(bool unseen, Time now);
  void remove_reader(Time now);
  /// A program is about to read all of the file, for as long as Readers says.
  void expect_reader(Time now);
  void set_warm(bool warm, Time now);
  /// All of it is there.
  void end_warming(Time now);
  /// The reads that waited are answered, and nobody else has it open.
  void used(Time now) { last_use_ = now; }
  /// The file's names are gone: only what its readers ask for is made from now on.
  void drop();
  /// Nothing is made any more.
  void abandon() { abandoned_ = true; }

  [[nodiscard]] const Readers& readers() const { return readers_; }
  [[nodiscard]] bool is_warming() const { return warm_; }
  /// Warming was taken back, and nobody has opened it since.
  [[nodiscard]] bool is_called_off() const { return called_off_; }
  [[nodiscard]] bool is_dropped() const { return dropped_; }
  [[nodiscard]] bool is_abandoned() const { return abandoned_; }
  [[nodiscard]] bool wants_fill(Time now) const;
  [[nodiscard]] Time last_use() const { return last_use_; }
  /// The last failure of a tile, until all that failed succeed or somebody begins afresh.
  [[nodiscard]] const std::optional<Error>& failure() const { return failure_; }

 private:
  enum class State : uint8_t { kAbsent, kQueued, kMaking, kReady };

  void set(uint32_t tile, State state);
  void ended(Priority priority);
  void forget_failures();

  std::vector<State> tiles_;
  uint32_t ready_ = 0;
  uint32_t absent_;
  ReadAhead read_ahead_;
  Readers readers_;
  bool warm_ = false;
  bool called_off_ = false;
  bool abandoned_ = false;
  bool dropped_ = false;
  Time last_use_;
  uint32_t fill_cursor_ = 0;
  uint32_t fill_in_flight_ = 0;
  std::vector<bool> failed_;  // the tiles whose last try failed, and how many those are
  uint32_t failures_ = 0;
  std::optional<Error> failure_;
  std::optional<Time> fill_again_;  // where the disk was full: when there may be room
  std::chrono::seconds fill_pause_ = kFirstFillPause;
};

}  // namespace qcache

#include "core/engine/tile_schedule.h"

#include <algorithm>

namespace qcache {

TileSchedule::TileSchedule(uint32_t tiles, Time now)
    : tiles_(tiles, State::kAbsent), absent_(tiles), last_use_(now), failed_(tiles) {}

std::vector<uint32_t> TileSchedule::missing(const std::vector<TileSpan>& needed) const {
  std::vector<uint32_t> missing;
  for (const TileSpan& span : needed) {
    for (uint32_t tile = span.first; tile < span.end; ++tile) {
      if (tiles_[tile] != State::kReady) {
        missing.push_back(tile);
      }
    }
  }
  return missing;
}

void TileSchedule::set(uint32_t tile, State state) {
  absent_ -= tiles_[tile] == State::kAbsent ? 1U : 0U;
  ready_ -= tiles_[tile] == State::kReady ? 1U : 0U;
  tiles_[tile] = state;
  absent_ += state == State::kAbsent ? 1U : 0U;
  ready_ += state == State::kReady ? 1U : 0U;
}

void TileSchedule::queued(uint32_t tile, Priority priority) {
  set(tile, State::kQueued);
  fill_in_flight_ += priority == Priority::kFill ? 1U : 0U;
}

void TileSchedule::ended(Priority priority) {
  fill_in_flight_ -= priority == Priority::kFill ? 1U : 0U;
}

bool TileSchedule::begin(uint32_t tile, Priority priority, bool waited_for, Time now) {
  const bool mine = tiles_[tile] == State::kQueued;
  const bool wanted =
      !abandoned_ && (waited_for || wants_fill(now) || (priority == Priority::kReadAhead && readers_.any()));
  if (mine && wanted) {
    set(tile, State::kMaking);
    return true;
  }
  if (mine) {
    set(tile, State::kAbsent);
  }
  ended(priority);
  return false;
}

void TileSchedule::made(uint32_t tile, Priority priority) {
  set(tile, State::kReady);
  ended(priority);
  if (failed_[tile]) {
    failed_[tile] = false;
    if (--failures_ == 0) {
      forget_failures();
    }
  }
}

bool TileSchedule::failed(uint32_t tile, Priority priority, const Error& error, bool unstored, Time now) {
  set(tile, State::kAbsent);
  ended(priority);
  const bool known = unstored && failure_ && failure_->message == error.message;
  failure_ = error;
  failures_ += failed_[tile] ? 0U : 1U;
  failed_[tile] = true;
  warm_ = false;
  if (!unstored) {
    fill_again_.reset();
  } else if (!fill_again_) {
    fill_again_ = now + fill_pause_;
  } else if (now >= *fill_again_) {
    fill_pause_ = std::min(2 * fill_pause_, kLongestFillPause);
    fill_again_ = now + fill_pause_;
  }
  return !known;
}

void TileSchedule::forget_failures() {
  failed_.assign(failed_.size(), false);
  failures_ = 0;
  failure_.reset();
  fill_again_.reset();
  fill_pause_ = kFirstFillPause;
}

TileSpan TileSchedule::after_read(TileSpan read, Time now) {
  if (abandoned_) {
    return {};
  }
  readers_.on_read(now);
  if (fill_again_) {
    return {};  // no room: what nobody asked for would only drive out what somebody did
  }
  return read_ahead_.after_read(read, static_cast<uint32_t>(tiles_.size()));
}

bool TileSchedule::wants_fill(Time now) const {
  if (abandoned_ || dropped_ || (failure_ && !(fill_again_ && now >= *fill_again_))) {
    return false;
  }
  return warm_ || readers_.want_the_rest(now);
}

std::optional<uint32_t> TileSchedule::next_to_fill(unsigned at_once, Time now) {
  if (fill_in_flight_ >= at_once || absent_ == 0 || !wants_fill(now)) {
    return std::nullopt;
  }
  while (tiles_[fill_cursor_] != State::kAbsent) {
    fill_cursor_ = (fill_cursor_ + 1) % static_cast<uint32_t>(tiles_.size());
  }
  return fill_cursor_;
}

void TileSchedule::add_reader(bool unseen, Time now) {
  if (!readers_.any()) {
    forget_failures();
  }
  readers_.add();
  if (unseen) {
    readers_.on_unseen(now);
  }
  called_off_ = false;
}

void TileSchedule::remove_reader(Time now) {
  readers_.remove();
  if (!readers_.any()) {
    last_use_ = now;
  }
}

void TileSchedule::expect_reader(Time now) {
  readers_.expect(now);
  last_use_ = now;
}

void TileSchedule::set_warm(bool warm, Time now) {
  called_off_ = !warm;
  warm_ = warm;
  last_use_ = now;
  if (warm) {
    forget_failures();
  }
}

void TileSchedule::end_warming(Time now) {
  if (warm_) {
    warm_ = false;
    last_use_ = now;
  }
}

void TileSchedule::drop() {
  dropped_ = true;
  warm_ = false;
}

}  // namespace qcache

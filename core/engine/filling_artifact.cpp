#include "core/engine/filling_artifact.h"

#include <algorithm>

#include "core/base/contain_exceptions.h"
#include "core/base/log.h"
#include "core/base/page_buffer.h"

namespace qcache {
namespace {

using Clock = std::chrono::steady_clock;

PageBuffer& thread_read_buffer() {
  thread_local PageBuffer buffer;
  return buffer;
}

}  // namespace

/// One read that waits for tiles. Finishing happens once, by whoever comes first: the last tile, a failed tile, the
/// reader's cancel, or abandon().
class FillingArtifact::Waiter final : public PendingRead {
 public:
  Waiter(std::shared_ptr<FillingArtifact> artifact, ByteRange range, ReadCallback callback)
      : artifact_(std::move(artifact)), range_(range), callback_(std::move(callback)) {}

  void cancel() override {
    if (claim()) {
      artifact_->forget(*this);
      callback_(fail(ErrorKind::kInterrupted, "the read was interrupted"));
    }
  }

  /// True for the one caller that may run the callback.
  bool claim() { return !claimed_.exchange(true); }
  [[nodiscard]] bool claimed() const { return claimed_; }
  [[nodiscard]] ByteRange range() const { return range_; }
  [[nodiscard]] const ReadCallback& callback() const { return callback_; }

  // Guarded by the artifact's mutex until it is released.
  uint32_t missing = 0;  // tiles
  FromMemory memory;
  Status kept;

 private:
  const std::shared_ptr<FillingArtifact> artifact_;
  const ByteRange range_;
  const ReadCallback callback_;
  std::atomic<bool> claimed_{false};
};

FillingArtifact::FillingArtifact(ArtifactName name, std::shared_ptr<const LayoutPlan> plan,
                                 std::unique_ptr<SourceReader> source, std::shared_ptr<FillingFile> filling, Env& env,
                                 Workshop& workshop, Stats& stats, FillingObserver& observer)
    : name_(std::move(name)),
      plan_(std::move(plan)),
      source_(std::move(source)),
      filling_(std::move(filling)),
      env_(env),
      workshop_(workshop),
      stats_(stats),
      observer_(observer),
      surveys_(*plan_, *source_),
      maker_(env_, *plan_, *source_, surveys_, workshop_.factor_workers(), *filling_, stats_),
      tiles_(plan_->tile_count(), TileState::kAbsent),
      absent_(plan_->tile_count()),
      last_use_(Clock::now()),
      failed_(plan_->tile_count()) {}

std::shared_ptr<PendingRead> FillingArtifact::read(ByteRange range, ReadIntent intent, ReadCallback callback) {
  stats_.reads.fetch_add(1, std::memory_order_relaxed);
  last_read_ns_.store(env_.now_ns(), std::memory_order_relaxed);
  range = range.intersect(ByteRange{0, plan_->size_bytes()});
  const std::vector<TileSpan> needed = plan_->tiles_for(range);
  std::shared_ptr<Waiter> waiter;
  std::optional<Error> refused;
  bool answered = false;  // by what is kept in memory
  {
    const MutexLock lock(mutex_);
    const std::vector<uint32_t> missing = missing_tiles(needed);
    if (abandoned_ && !missing.empty()) {
      refused = Error{ErrorKind::kInterrupted, 0, "the filesystem is being unmounted"};
    } else if (intent == ReadIntent::kSpeculative && !missing.empty() && needs_whole_group(range)) {
      refused = Error{ErrorKind::kBusy, 0, "read-ahead across the end of a tensor that is not made yet"};
    } else if (!missing.empty()) {
      waiter = std::make_shared<Waiter>(shared_from_this(), range, callback);
      try {
        for (const uint32_t tile : missing) {
          if (const auto unstored = unstored_.find(tile)) {
            waiter->memory.keep(*plan_, range, tile, *unstored);
          } else {
            request(tile, Priority::kDemand);
            waiters_.emplace(tile, waiter);
            ++waiter->missing;
          }
        }
        answered = waiter->missing == 0;
      } catch (...) {
        (void)waiter->claim();  // for the tiles that it is already queued for
        throw;
      }
    }
    if (!refused) {
      start_read_ahead(needed);
    }
  }
  if (refused) {
    callback(fail(*refused));
  } else if (!waiter) {
    deliver(range, {}, callback);
  } else if (answered) {
    deliver(range, waiter->memory, callback);
    return nullptr;
  }
  return waiter;
}

bool FillingArtifact::needs_whole_group(ByteRange range) const {
  const std::vector<Piece> pieces = plan_->locate(range);
  return std::any_of(pieces.begin(), pieces.end(), [&](const Piece& piece) QCACHE_REQUIRES(mutex_) {
    return piece.kind == PieceKind::kTrailer && !missing_tiles({plan_->group(piece.group)->tiles}).empty();
  });
}

std::vector<uint32_t> FillingArtifact::missing_tiles(const std::vector<TileSpan>& needed) const {
  std::vector<uint32_t> missing;
  for (const TileSpan& span : needed) {
    for (uint32_t tile = span.first; tile < span.end; ++tile) {
      if (tiles_[tile] != TileState::kReady) {
        missing.push_back(tile);
      }
    }
  }
  return missing;
}

void FillingArtifact::start_read_ahead(const std::vector<TileSpan>& needed) {
  if (needed.empty() || abandoned_) {
    return;
  }
  readers_.on_read(Clock::now());
  if (fill_again_) {
    return;  // no room: what nobody asked for would only drive out what somebody did
  }
  const TileSpan read{needed.front().first, needed.back().end};
  const TileSpan ahead = read_ahead_.after_read(read, static_cast<uint32_t>(tiles_.size()));
  for (uint32_t tile = ahead.first; tile < ahead.end; ++tile) {
    if (tiles_[tile] == TileState::kAbsent && !try_request(tile, Priority::kReadAhead)) {
      return;
    }
  }
}

void FillingArtifact::request(uint32_t tile, Priority priority) {
  if (tiles_[tile] != TileState::kAbsent && tiles_[tile] != TileState::kQueued) {
    return;
  }
  // First, as it may throw; the job waits for our lock.
  pool_for(tile).submit(
      priority, [self = shared_from_this(), tile, priority] { self->run_tile(tile, priority); }, source_->device());
  set_state(tile, TileState::kQueued);
}

bool FillingArtifact::try_request(uint32_t tile, Priority priority) {
  try {
    request(tile, priority);
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

WorkerPool& FillingArtifact::pool_for(uint32_t tile) const {
  const std::shared_ptr<const Group> group = plan_->group(plan_->tile(tile).group);
  return group->encoding.factored != nullptr ? workshop_.factor_pool() : workshop_.pool();
}

void FillingArtifact::set_state(uint32_t tile, TileState state) {
  absent_ -= tiles_[tile] == TileState::kAbsent ? 1U : 0U;
  ready_ -= tiles_[tile] == TileState::kReady ? 1U : 0U;
  tiles_[tile] = state;
  absent_ += state == TileState::kAbsent ? 1U : 0U;
  ready_ += state == TileState::kReady ? 1U : 0U;
}

bool FillingArtifact::still_wanted(uint32_t tile, Priority priority) const {
  if (abandoned_) {
    return false;
  }
  if (waiters_.contains(tile) || fill_wanted()) {
    return true;
  }
  return priority == Priority::kReadAhead && readers_.any();
}

bool FillingArtifact::fill_wanted() const {
  if (abandoned_ || dropped_ || (failure_ && !(fill_again_ && Clock::now() >= *fill_again_))) {
    return false;
  }
  return warm_ || readers_.want_the_rest(Clock::now());
}

void FillingArtifact::pump_fill() {
  while (fill_in_flight_ < workshop_.pool().thread_count() && absent_ > 0 && fill_wanted()) {
    while (tiles_[fill_cursor_] != TileState::kAbsent) {
      fill_cursor_ = (fill_cursor_ + 1) % static_cast<uint32_t>(tiles_.size());
    }
    if (!try_request(fill_cursor_, Priority::kFill)) {
      return;  // the next tick tries again
    }
    ++fill_in_flight_;
  }
}

void FillingArtifact::run_tile(uint32_t tile, Priority priority) {
  TileMaker::Proof proof = TileMaker::Proof::kChecksum;
  {
    const MutexLock lock(mutex_);
    const bool mine = tiles_[tile] == TileState::kQueued;
    const bool wanted = mine && still_wanted(tile, priority);
    if (wanted) {
      set_state(tile, TileState::kMaking);
      if (priority == Priority::kFill && !readers_.expected(Clock::now())) {
        proof = TileMaker::Proof::kChecksumAndDigest;  // nobody waits for it, and all cores work on it
      }
    } else {
      if (mine) {
        set_state(tile, TileState::kAbsent);
      }
      if (priority == Priority::kFill) {
        --fill_in_flight_;
        pump_fill();
      }
      return;
    }
  }
  const auto made = contain_exceptions("cannot make a tile", [&] { return maker_.ensure(tile, proof); });
  const bool unstored = made && *made;
  const Error* const error = !made ? &made.error() : unstored ? &(*made)->why : nullptr;
  Waiters released;
  bool complete = false;
  bool news = false;
  {
    const MutexLock lock(mutex_);
    set_state(tile, error == nullptr ? TileState::kReady : TileState::kAbsent);
    if (error != nullptr) {
      news = note_failure(tile, *error, unstored);
    } else {
      note_success(tile);
    }
    if (unstored) {
      unstored_.add(tile, *made);
    } else {
      unstored_.erase(tile);
    }
    if (priority == Priority::kFill) {
      --fill_in_flight_;
    }
    released = release_waiters(tile, made);
    complete = announce_due();
    pump_fill();
  }
  if (news) {
    observer_.on_failure(shared_from_this(), *error);  // first, so that whoever sees a read fail finds the reason
  }
  for (const auto& [waited_for, waiter] : released) {
    if (!waiter->claim()) {
      continue;
    }
    if (made && waiter->kept) {
      deliver(waiter->range(), waiter->memory, waiter->callback());
    } else {
      stats_.read_errors.fetch_add(1, std::memory_order_relaxed);
      waiter->callback()(fail(made ? waiter->kept.error() : made.error()));
    }
  }
  if (complete) {
    observer_.on_complete(shared_from_this());
  }
}

bool FillingArtifact::note_failure(uint32_t tile, const Error& error, bool unstored) {
  const bool known = unstored && failure_ && failure_->message == error.message;
  failure_ = error;
  failures_ += failed_[tile] ? 0U : 1U;
  failed_[tile] = true;
  warm_ = false;
  const Clock::time_point now = Clock::now();
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

void FillingArtifact::note_success(uint32_t tile) {
  if (failed_[tile]) {
    failed_[tile] = false;
    if (--failures_ == 0) {
      forget_failures();
    }
  }
}

void FillingArtifact::forget_failures() {
  failed_.assign(failed_.size(), false);
  failures_ = 0;
  failure_.reset();
  fill_again_.reset();
  fill_pause_ = kFirstFillPause;
}

FillingArtifact::Waiters FillingArtifact::release_waiters(uint32_t tile,
                                                          const Result<std::shared_ptr<const UnstoredTile>>& made) {
  Waiters released;
  const auto [begin, end] = waiters_.equal_range(tile);
  for (auto it = begin; it != end;) {
    const auto waiting = it++;
    Waiter& waiter = *waiting->second;
    if (made && *made) {
      waiter.kept = contain_exceptions("cannot keep what could not be stored", [&]() -> Status {
        waiter.memory.keep(*plan_, waiter.range(), tile, **made);
        return {};
      });
    }
    if (!made || !waiter.kept || --waiter.missing == 0) {
      released.insert(waiters_.extract(waiting));
    } else {
      waiters_.erase(waiting);
    }
  }
  if (!released.empty() && !readers_.any() && !warm_) {
    last_use_ = Clock::now();
  }
  return released;
}

bool FillingArtifact::announce_due() {
  if (announced_ || abandoned_ || dropped_ || ready_ != tiles_.size()) {
    return false;
  }
  const Clock::time_point now = Clock::now();
  if (seal_failure_ && now < seal_again_) {
    return false;
  }
  complete_since_ = complete_since_.value_or(now);
  if (!warm_ && readers_.hold_back_sealing(now, *complete_since_)) {
    return false;
  }
  announced_ = true;
  warm_ = false;
  return true;
}

void FillingArtifact::forget(const Waiter& waiter) {
  std::vector<std::shared_ptr<Waiter>> dropped;  // released after the lock: each may be the last owner of this
  const MutexLock lock(mutex_);
  for (auto it = waiters_.begin(); it != waiters_.end();) {
    if (it->second.get() == &waiter) {
      dropped.push_back(std::move(it->second));
      it = waiters_.erase(it);
    } else {
      ++it;
    }
  }
}

void FillingArtifact::deliver(ByteRange range, const FromMemory& memory, const ReadCallback& callback) const {
  PageBuffer& buffer = thread_read_buffer();
  const Status read = contain_exceptions("cannot read " + name_.virtual_path(), [&] {
    buffer.resize(range.size);
    return assemble(range, memory, buffer);
  });
  if (!read) {
    stats_.read_errors.fetch_add(1, std::memory_order_relaxed);
    callback(fail(read.error()));
  } else {
    callback(std::span<const std::byte>(buffer));
  }
}

Status FillingArtifact::assemble(ByteRange range, const FromMemory& memory, std::span<std::byte> out) const {
  QCACHE_TRY_ASSIGN(const size_t got, env_.read_at(filling_->fd(), out, range.offset));
  if (got != out.size()) {
    return fail(ErrorKind::kCorrupt,
                "the cached file of " + name_.virtual_path() + " was cut short: remove it (rm) and read again");
  }
  memory.overlay(range, out);
  plan_->render_static(range, out);
  for (const Piece& piece : plan_->locate(range)) {
    if (piece.kind == PieceKind::kTrailer) {
      QCACHE_TRY_ASSIGN(const std::vector<std::byte> bytes, trailer(piece, memory));
      std::copy(bytes.begin(), bytes.end(), out.begin() + static_cast<ptrdiff_t>(piece.range.offset - range.offset));
    }
  }
  return {};
}

Result<std::vector<std::byte>> FillingArtifact::trailer(const Piece& piece, const FromMemory& memory) const {
  QCACHE_TRY_ASSIGN(const uint32_t crc, stored_crc(piece.group, piece.stored, memory));
  const std::vector<std::byte> whole = plan_->trailer(piece.group, piece.stored, crc);
  const auto begin = whole.begin() + static_cast<ptrdiff_t>(piece.stored_offset);
  return std::vector<std::byte>(begin, begin + static_cast<ptrdiff_t>(piece.range.size));
}

Result<uint32_t> FillingArtifact::stored_crc(uint32_t group, uint32_t stored, const FromMemory& memory) const {
  uint32_t crc = 0;
  const std::shared_ptr<const Group> planned = plan_->group(group);
  for (uint32_t index = planned->tiles.first; index < planned->tiles.end; ++index) {
    const TileMark* const unstored = memory.mark_of(index);
    const std::optional<TileMark> mark = unstored != nullptr ? *unstored : filling_->mark_of(index);
    if (!mark || !mark->crc) {
      // Another process found the tile's bytes wrong after we had verified them: the disk changed under us.
      return fail(ErrorKind::kCorrupt,
                  "the cached file of " + name_.virtual_path() + " changed on disk while it was read: read it again");
    }
    uint64_t bytes = 0;
    for (const ByteRange& range : plan_->tile_file_ranges(plan_->tile(index), stored)) {
      bytes += range.size;
    }
    crc = crc32_combine(crc, mark->crc->at(stored), bytes);
  }
  const StoredTensor& tensor = planned->encoding.stored[stored];
  if (tensor.order != UnitOrder::kFolded) {
    return crc;
  }
  // Each tile's bytes lie in two places, and their CRCs cannot be put together. Such tensors are small.
  return crc_of_file(ByteRange{planned->data_offsets[stored], tensor.size_bytes()}, memory);
}

Result<uint32_t> FillingArtifact::crc_of_file(ByteRange range, const FromMemory& memory) const {
  constexpr uint64_t kReadBytes = uint64_t{1} << 20;
  PageBuffer buffer(std::min(kReadBytes, range.size));
  uint32_t crc = 0;
  while (!range.empty()) {
    const std::span<std::byte> part = std::span(buffer).first(std::min<uint64_t>(buffer.size(), range.size));
    QCACHE_TRY_ASSIGN(const size_t got, env_.read_at(filling_->fd(), part, range.offset));
    if (got != part.size()) {
      return fail(ErrorKind::kCorrupt,
                  "the cached file of " + name_.virtual_path() + " became shorter while it was read: read it again");
    }
    memory.overlay(ByteRange{range.offset, got}, part);
    crc = crc32(crc, part);
    range = ByteRange{range.offset + got, range.size - got};
  }
  return crc;
}

Record FillingArtifact::record_draft() const {
  Record draft;
  draft.file = filling_->key().file;
  draft.virtual_path = name_.virtual_path();
  draft.model_path = model_path();
  draft.dtype = name_.scheme->name();
  draft.rank = name_.rank;
  draft.recipe = recipe();
  draft.method = method_of(name_);
  draft.scheme_version = name_.scheme->version();
  draft.created_ns = env_.now_ns();
  draft.accessed_ns = last_read_ns_.load(std::memory_order_relaxed);
  return draft;
}

Status FillingArtifact::write_static_bytes() {
  constexpr uint64_t kWindowBytes = uint64_t{4} << 20;
  std::vector<std::byte> buffer;
  for (uint64_t offset = 0; offset < size_bytes(); offset += kWindowBytes) {
    const ByteRange window = ByteRange{offset, kWindowBytes}.intersect(ByteRange{0, size_bytes()});
    for (const Piece& piece : plan_->locate(window)) {
      if (piece.kind == PieceKind::kStatic) {
        buffer.resize(piece.range.size);
        plan_->render_static(piece.range, buffer);
      } else if (piece.kind == PieceKind::kTrailer) {
        QCACHE_TRY_ASSIGN(buffer, trailer(piece, {}));
      } else {
        continue;
      }
      QCACHE_TRY(env_.write_at(filling_->fd(), buffer, piece.range.offset));
    }
  }
  return {};
}

Status FillingArtifact::add_digests(const KeepGoing& keep_going) {
  for (uint32_t tile = 0; tile < plan_->tile_count(); ++tile) {
    if (keep_going && !keep_going()) {
      return fail(ErrorKind::kInterrupted, "hashing the tiles was interrupted");
    }
    if (Status added = maker_.add_digest(tile); !added) {
      const MutexLock lock(mutex_);
      set_state(tile, TileState::kAbsent);  // whoever wants it next has it made
      complete_since_.reset();
      return added;
    }
  }
  return {};
}

Result<std::optional<Record>> FillingArtifact::seal(Store& store, const KeepGoing& keep_going) {
  filling_->expect_reading_through();
  Status completed = add_digests(keep_going);
  if (completed) {
    completed = write_static_bytes();
  }
  if (!completed) {
    return fail(completed.error().with_context("cannot complete the cached file"));
  }
  auto quality = measure_quality(env_, *plan_, *source_, surveys_, filling_->fd(), keep_going);
  if (!quality && quality.error().kind != ErrorKind::kInterrupted) {
    spdlog::warn("the quality of {} stays unknown: {}", name_.virtual_path(), quality.error().message);
  }
  auto sealed = store.seal(*filling_, record_draft(), quality ? *quality : std::vector<TensorQuality>(), keep_going);
  if (!sealed) {
    return fail(sealed.error().with_context("cannot seal the cached file"));
  }
  return sealed;
}

void FillingArtifact::add_opener() {
  const MutexLock lock(mutex_);
  if (!readers_.any()) {
    start_afresh();
  }
  readers_.add();
  called_off_ = false;
}

void FillingArtifact::remove_opener() {
  bool complete = false;
  bool last = false;
  {
    const MutexLock lock(mutex_);
    readers_.remove();
    if (!readers_.any()) {
      last_use_ = Clock::now();
      complete = announce_due();
      last = true;
    }
  }
  if (last) {
    filling_->note_use();
  }
  if (complete) {
    observer_.on_complete(shared_from_this());
  }
}

void FillingArtifact::set_warm(bool warm) {
  const MutexLock lock(mutex_);
  called_off_ = !warm;
  warm_ = warm && !announced_;
  last_use_ = Clock::now();
  if (warm) {
    start_afresh();
  }
  pump_fill();
}

void FillingArtifact::start_afresh() {
  unstored_.clear();  // there may be room by now
  forget_failures();
  seal_failure_.reset();
  seal_pause_ = kFirstSealPause;
}

void FillingArtifact::sealing_failed(const Error& error) {
  const MutexLock lock(mutex_);
  seal_failure_ = error;
  seal_again_ = Clock::now() + seal_pause_;
  seal_pause_ = std::min(2 * seal_pause_, kLongestSealPause);
  announced_ = false;
}

void FillingArtifact::drop() {
  const MutexLock lock(mutex_);
  dropped_ = true;
  warm_ = false;
}

bool FillingArtifact::dropped() const {
  const MutexLock lock(mutex_);
  return dropped_;
}

void FillingArtifact::expect_reader() {
  const MutexLock lock(mutex_);
  readers_.expect(Clock::now());
  last_use_ = Clock::now();
  pump_fill();
}

void FillingArtifact::tick() {
  bool complete = false;
  {
    const MutexLock lock(mutex_);
    complete = announce_due();
    pump_fill();
    if (!readers_.read_since(Clock::now() - kUnstoredKept)) {
      unstored_.clear();
    }
  }
  if (complete) {
    observer_.on_complete(shared_from_this());
  }
}

double FillingArtifact::progress() const {
  const uint32_t tiles = plan_->tile_count();
  return tiles == 0 ? 1.0 : static_cast<double>(filling_->marked_count()) / static_cast<double>(tiles);
}

bool FillingArtifact::in_use() const {
  const MutexLock lock(mutex_);
  return readers_.any() || warm_ || !waiters_.empty();
}

bool FillingArtifact::warming() const {
  const MutexLock lock(mutex_);
  return warm_;
}

bool FillingArtifact::fills() const {
  const MutexLock lock(mutex_);
  return ready_ != tiles_.size() && fill_wanted();
}

bool FillingArtifact::complete() const {
  const MutexLock lock(mutex_);
  return ready_ == tiles_.size();
}

int64_t FillingArtifact::idle_ms() const {
  const MutexLock lock(mutex_);
  if (readers_.any() || warm_ || !waiters_.empty()) {
    return 0;
  }
  const auto idle = Clock::now() - last_use_;
  return std::chrono::duration_cast<std::chrono::milliseconds>(idle).count();
}

bool FillingArtifact::is_called_off() const {
  const MutexLock lock(mutex_);
  return called_off_;
}

std::optional<Error> FillingArtifact::failure() const {
  const MutexLock lock(mutex_);
  return failure_ ? failure_ : seal_failure_;
}

void FillingArtifact::abandon() {
  Waiters waiting;
  {
    const MutexLock lock(mutex_);
    abandoned_ = true;
    waiting.swap(waiters_);
  }
  for (const auto& [tile, waiter] : waiting) {
    if (waiter->claim()) {
      waiter->callback()(fail(ErrorKind::kInterrupted, "the filesystem is being unmounted"));
    }
  }
}

}  // namespace qcache

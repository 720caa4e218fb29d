#include "core/engine/filling_artifact.h"

#include <algorithm>

#include "core/base/contain_exceptions.h"
#include "core/base/log.h"
#include "core/base/page_buffer.h"
#include "core/engine/file_answer.h"

namespace qcache {
namespace {

PageBuffer& thread_read_buffer() {
  thread_local PageBuffer buffer;
  return buffer;
}

}  // namespace

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
      surveys_(std::make_shared<Surveys>(*plan_, *source_)),
      maker_(env_, *plan_, *source_, *surveys_, workshop_.factor_workers(), *filling_, stats_),
      assembly_(env_, *plan_, *filling_),
      schedule_(plan_->tile_count(), now()) {}

std::shared_ptr<PendingRead> FillingArtifact::read(ByteRange range, ReadIntent intent, ReadCallback callback) {
  last_read_ns_.store(env_.now_ns(), std::memory_order_relaxed);
  if (const int fd = complete_fd(); fd >= 0) {
    answer_from_file(env_, stats_, fd, range.intersect(ByteRange{0, plan_->size_bytes()}), callback);
    return nullptr;
  }
  stats_.reads.fetch_add(1, std::memory_order_relaxed);
  range = range.intersect(ByteRange{0, plan_->size_bytes()});
  const std::vector<TileSpan> needed = plan_->tiles_for(range);
  std::shared_ptr<WaitingRead> read;
  std::optional<Error> refused;
  bool answered = false;  // by what is kept in memory
  {
    const MutexLock lock(mutex_);
    const std::vector<uint32_t> missing = schedule_.missing(needed);
    if (schedule_.is_abandoned() && !missing.empty()) {
      refused = Error{ErrorKind::kInterrupted, 0, "the filesystem is being unmounted"};
    } else if (intent == ReadIntent::kSpeculative && !missing.empty() && needs_whole_group(range)) {
      refused = Error{ErrorKind::kBusy, 0, "read-ahead across the end of a tensor that is not made yet"};
    } else if (!missing.empty()) {
      read = std::make_shared<WaitingRead>(
          range, callback, [self = shared_from_this()](const WaitingRead& cancelled) { self->forget(cancelled); });
      try {
        for (const uint32_t tile : missing) {
          if (const auto unstored = unstored_.find(tile)) {
            read->memory.keep(*plan_, range, tile, *unstored);
          } else {
            request(tile, Priority::kDemand);
            waiting_.add(tile, read);
          }
        }
        answered = WaitingReads::has_all(*read);
      } catch (...) {
        (void)read->claim();  // for the tiles that it is already queued for
        throw;
      }
    }
    if (!refused) {
      start_read_ahead(needed);
    }
  }
  if (refused) {
    callback(fail(*refused));
  } else if (!read) {
    deliver(range, {}, callback);
  } else if (answered) {
    deliver(range, read->memory, callback);
    return nullptr;
  }
  return read;
}

bool FillingArtifact::needs_whole_group(ByteRange range) const {
  const std::vector<Piece> pieces = plan_->locate(range);
  return std::any_of(pieces.begin(), pieces.end(), [&](const Piece& piece) QCACHE_REQUIRES(mutex_) {
    return piece.kind == PieceKind::kTrailer && !schedule_.missing({plan_->group(piece.group)->tiles}).empty();
  });
}

void FillingArtifact::start_read_ahead(const std::vector<TileSpan>& needed) {
  if (needed.empty()) {
    return;
  }
  const TileSpan ahead = schedule_.after_read(TileSpan{needed.front().first, needed.back().end}, now());
  for (uint32_t tile = ahead.first; tile < ahead.end; ++tile) {
    if (schedule_.is_absent(tile) && !try_request(tile, Priority::kReadAhead)) {
      return;
    }
  }
}

void FillingArtifact::request(uint32_t tile, Priority priority) {
  if (!schedule_.is_open(tile)) {
    return;
  }
  // First, as it may throw; the job waits for our lock.
  pool_for(tile).submit(
      priority, [self = shared_from_this(), tile, priority] { self->run_tile(tile, priority); }, source_->device());
  schedule_.queued(tile, priority);
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

void FillingArtifact::pump_fill() {
  const Time at = now();
  while (const auto tile = schedule_.next_to_fill(workshop_.pool().thread_count(), at)) {
    if (!try_request(*tile, Priority::kFill)) {
      return;  // the next tick tries again
    }
  }
}

void FillingArtifact::run_tile(uint32_t tile, Priority priority) {
  TileMaker::Proof proof = TileMaker::Proof::kChecksum;
  {
    const MutexLock lock(mutex_);
    if (!schedule_.begin(tile, priority, waiting_.any_for(tile), now())) {
      pump_fill();
      return;
    }
    if (priority == Priority::kFill && !schedule_.readers().expected(now())) {
      proof = TileMaker::Proof::kChecksumAndDigest;  // nobody waits for it, and all cores work on it
    }
  }
  const auto made = contain_exceptions("cannot make a tile", [&] { return maker_.ensure(tile, proof); });
  const bool unstored = made && *made;
  const Error* const error = !made ? &made.error() : unstored ? &(*made)->why : nullptr;
  WaitingReads::ByTile released;
  bool all_made = false;
  bool news = false;
  {
    const MutexLock lock(mutex_);
    if (error == nullptr) {
      schedule_.made(tile, priority);
    } else {
      news = schedule_.failed(tile, priority, *error, unstored, now());
    }
    if (unstored) {
      unstored_.add(tile, *made);
    } else {
      unstored_.erase(tile);
    }
    released = waiting_.release(*plan_, tile, made);
    if (!released.empty() && !schedule_.readers().any() && !schedule_.is_warming()) {
      schedule_.used(now());
    }
    all_made = is_news_that_all_made();
    pump_fill();
  }
  if (news) {
    observer_.on_failure(shared_from_this(), *error);  // first, so that whoever sees a read fail finds the reason
  }
  for (const auto& [waited_for, read] : released) {
    if (!read->claim()) {
      continue;
    }
    if (made && read->kept) {
      deliver(read->range(), read->memory, read->callback());
    } else {
      stats_.read_errors.fetch_add(1, std::memory_order_relaxed);
      read->callback()(fail(made ? read->kept.error() : made.error()));
    }
  }
  if (all_made) {
    observer_.on_all_made(shared_from_this());
  }
}

bool FillingArtifact::is_news_that_all_made() {
  if (told_all_made_ || schedule_.is_abandoned() || schedule_.is_dropped() || !schedule_.all_ready()) {
    return false;
  }
  told_all_made_ = true;
  seal_at_once_ = schedule_.is_warming();
  schedule_.end_warming(now());
  return true;
}

void FillingArtifact::forget(const WaitingRead& read) {
  WaitingReads::Reads dropped;  // released after the lock
  const MutexLock lock(mutex_);
  dropped = waiting_.forget(read);
}

void FillingArtifact::deliver(ByteRange range, const FromMemory& memory, const ReadCallback& callback) const {
  PageBuffer& buffer = thread_read_buffer();
  const Status read = contain_exceptions("cannot read " + name_.virtual_path(), [&] {
    buffer.resize(range.size);
    return assembly_.read(range, memory, buffer);
  });
  if (!read) {
    stats_.read_errors.fetch_add(1, std::memory_order_relaxed);
    callback(fail(read.error()));
  } else {
    callback(std::span<const std::byte>(buffer));
  }
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

Status FillingArtifact::set_complete() {
  if (complete_fd() >= 0) {
    return {};
  }
  if (filling_->is_complete()) {
    QCACHE_TRY(assembly_.check_static_bytes());  // written by another process, or before a power cut
  } else {
    QCACHE_TRY(assembly_.write_static_bytes());
    env_.reached("static bytes written");
    QCACHE_TRY(filling_->set_complete());
  }
  QCACHE_TRY_ASSIGN(UniqueFd fd, filling_->open_for_readers());
  filling_->expect_reading_through();
  const MutexLock lock(mutex_);
  complete_ = std::move(fd);
  completed_ns_ = env_.now_ns();
  return {};
}

int FillingArtifact::complete_fd() const {
  const MutexLock lock(mutex_);
  return complete_.get();
}

int64_t FillingArtifact::completed_ns() const {
  const MutexLock lock(mutex_);
  return completed_ns_;
}

Status FillingArtifact::add_digests(const KeepGoing& keep_going) {
  for (uint32_t tile = 0; tile < plan_->tile_count(); ++tile) {
    if (keep_going && !keep_going()) {
      return fail(ErrorKind::kInterrupted, "hashing the tiles was interrupted");
    }
    QCACHE_TRY(maker_.add_digest(tile));
  }
  return {};
}

TilePlaces FillingArtifact::places_of_tiles() const {
  TilePlaces places;
  std::vector<ByteRange> ranges;
  for (uint32_t index = 0; index < plan_->tile_count(); ++index) {
    const Tile tile = plan_->tile(index);
    ranges.clear();
    for (uint32_t stored = 0; stored < plan_->group(tile.group)->encoding.stored.size(); ++stored) {
      const auto of_stored = plan_->tile_file_ranges(tile, stored);
      ranges.insert(ranges.end(), of_stored.begin(), of_stored.end());
    }
    places.add(ranges);
  }
  return places;
}

Result<HashedFile> FillingArtifact::prepare_seal(Store& store, const KeepGoing& keep_going) {
  auto hashed = [&]() -> Result<HashedFile> {
    QCACHE_TRY(add_digests(keep_going));
    return store.prepare_seal(*filling_, places_of_tiles(), keep_going);
  }();
  return hashed ? std::move(hashed) : fail(hashed.error().with_context("cannot seal the cached file"));
}

Result<std::optional<Record>> FillingArtifact::commit_seal(Store& store, const HashedFile& hashed) {
  auto sealed = store.commit_seal(*filling_, record_draft(), hashed);
  return sealed ? std::move(sealed) : fail(sealed.error().with_context("cannot seal the cached file"));
}

void FillingArtifact::add_opener() {
  const MutexLock lock(mutex_);
  if (!schedule_.readers().any()) {
    start_afresh();
  }
  schedule_.add_reader(complete_.valid(), now());
}

void FillingArtifact::remove_opener() {
  bool last = false;
  {
    const MutexLock lock(mutex_);
    schedule_.remove_reader(now());
    last = !schedule_.readers().any();
  }
  if (last) {
    filling_->note_use();
  }
}

void FillingArtifact::set_warm(bool warm) {
  bool again = false;
  {
    const MutexLock lock(mutex_);
    again = warm && told_all_made_;
    schedule_.set_warm(warm && !again, now());  // a complete file needs no more making
    seal_at_once_ = again;
    if (warm) {
      start_afresh();
    }
    pump_fill();
  }
  if (again) {
    observer_.on_all_made(shared_from_this());
  }
}

void FillingArtifact::start_afresh() {
  unstored_.clear();  // there may be room by now
  seal_failure_.reset();
}

void FillingArtifact::note_seal_failure(const Error& error) {
  const MutexLock lock(mutex_);
  seal_failure_ = error;
}

void FillingArtifact::drop() {
  const MutexLock lock(mutex_);
  schedule_.drop();
}

bool FillingArtifact::dropped() const {
  const MutexLock lock(mutex_);
  return schedule_.is_dropped();
}

void FillingArtifact::expect_reader() {
  const MutexLock lock(mutex_);
  if (!schedule_.readers().expected(now())) {
    announced_ = now();
    ready_when_announced_ = schedule_.ready_count();
  }
  schedule_.expect_reader(now());
  pump_fill();
}

std::optional<std::chrono::nanoseconds> FillingArtifact::load_comes_in() const {
  const MutexLock lock(mutex_);
  if (complete_.valid()) {
    return std::chrono::nanoseconds{0};
  }
  const Time at = now();
  if (!schedule_.readers().expected(at) || schedule_.failure() || schedule_.is_dropped()) {
    return std::nullopt;
  }
  const uint32_t made = schedule_.ready_count() - std::min(schedule_.ready_count(), ready_when_announced_);
  const uint32_t left = plan_->tile_count() - schedule_.ready_count();
  const bool is_near = (at - announced_) * left <= std::chrono::nanoseconds(kWorthWaiting) * made;
  // Nothing can be told by the first tiles.
  return is_near || at - announced_ < std::chrono::nanoseconds(kWorthWaiting) / 10
             ? std::optional(std::chrono::nanoseconds(kLookInterval))
             : std::nullopt;
}

void FillingArtifact::tick() {
  bool all_made = false;
  {
    const MutexLock lock(mutex_);
    all_made = is_news_that_all_made();
    pump_fill();
    if (!schedule_.readers().read_since(now() - kUnstoredKept)) {
      unstored_.clear();
    }
  }
  if (all_made) {
    observer_.on_all_made(shared_from_this());
  }
}

double FillingArtifact::progress() const {
  const uint32_t tiles = plan_->tile_count();
  return tiles == 0 ? 1.0 : static_cast<double>(filling_->marked_count()) / static_cast<double>(tiles);
}

bool FillingArtifact::in_use() const {
  const MutexLock lock(mutex_);
  return schedule_.readers().any() || schedule_.is_warming() || waiting_.any();
}

bool FillingArtifact::fills() const {
  const MutexLock lock(mutex_);
  return !schedule_.all_ready() && schedule_.wants_fill(now());
}

bool FillingArtifact::all_made() const {
  const MutexLock lock(mutex_);
  return schedule_.all_ready();
}

bool FillingArtifact::seals_at_once() const {
  const MutexLock lock(mutex_);
  return seal_at_once_;
}

bool FillingArtifact::holds_back_sealing(Time all_made_since) const {
  const MutexLock lock(mutex_);
  return !seal_at_once_ && schedule_.readers().hold_back_sealing(now(), all_made_since);
}

int64_t FillingArtifact::idle_ms() const {
  const MutexLock lock(mutex_);
  if (schedule_.readers().any() || schedule_.is_warming() || waiting_.any()) {
    return 0;
  }
  return std::chrono::duration_cast<std::chrono::milliseconds>(now() - schedule_.last_use()).count();
}

bool FillingArtifact::is_called_off() const {
  const MutexLock lock(mutex_);
  return schedule_.is_called_off();
}

std::optional<Error> FillingArtifact::failure() const {
  const MutexLock lock(mutex_);
  return schedule_.failure() ? schedule_.failure() : seal_failure_;
}

void FillingArtifact::abandon() {
  WaitingReads::ByTile waiting;
  {
    const MutexLock lock(mutex_);
    schedule_.abandon();
    waiting = waiting_.take_all();
  }
  for (const auto& [tile, read] : waiting) {
    if (read->claim()) {
      read->callback()(fail(ErrorKind::kInterrupted, "the filesystem is being unmounted"));
    }
  }
}

}  // namespace qcache

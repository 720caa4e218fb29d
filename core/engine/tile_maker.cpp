// 1. read the source rows, encode them, check that the source is still the one we planned from
// 2. write the bytes into the hole of the backing file              (unseen by readers)
// 3. mark the tile with their CRC                                   (seen by every process that shares the file)
// 4. the caller wakes readers, holding no lock
// 5. before sealing, add their SHA-256 to the mark                  (at once where no reader waits)
// A crash after 2 leaves a hole that is made again; after 3, a mark that the next process checks.

#include "core/engine/tile_maker.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "core/base/log.h"
#include "core/base/page_buffer.h"
#include "core/engine/residual.h"
#include "core/quant/factors.h"

namespace qcache {
namespace {

// Source bytes encoded at a time: with the bytes made from them they stay in a core's L2 cache.
constexpr uint64_t kSliceSourceBytes = uint64_t{256} << 10;

// Longer than any tile takes on a slow disk: who holds a tile lock beyond it is stopped or stuck.
constexpr std::chrono::seconds kTileLockPatience{10};

// Bytes of one tile per stored tensor, in kernel order. Kept per thread: tiles are alike in size, and a fresh buffer
// costs a page fault per 4 KiB.
struct TileBuffers {
  PageBuffer source;
  std::vector<PageBuffer> stored;
  std::vector<std::vector<std::byte>> slice;  // of tensors of which a tile makes bytes in two places
};

TileBuffers& thread_buffers() {
  thread_local TileBuffers buffers;
  return buffers;
}

/// Copies the bytes of `parts`, one after another in `from`, to where they belong in `to`, which holds those of `whole`
/// one after another. Each part lies in one range of `whole`.
void scatter(std::span<const std::byte> from, const std::vector<ByteRange>& parts, const std::vector<ByteRange>& whole,
             std::span<std::byte> to) {
  for (const ByteRange& part : parts) {
    uint64_t position = 0;
    for (const ByteRange& range : whole) {
      if (range.contains(part.offset)) {
        std::ranges::copy(from.first(part.size), to.subspan(position + part.offset - range.offset).begin());
      }
      position += range.size;
    }
    from = from.subspan(part.size);
  }
}

TileMark mark_for(std::span<const PageBuffer> stored, bool with_digest) {
  TileMark mark;
  auto& crc = mark.crc.emplace();
  Sha256 hash;
  for (size_t i = 0; i < stored.size(); ++i) {
    crc.at(i) = crc32(0, stored[i]);
    if (with_digest) {
      hash.update(stored[i]);
    }
  }
  if (with_digest) {
    mark.digest = hash.finish();
  }
  return mark;
}

/// A mark that a full disk refused: whoever waits for the bytes gets them all the same, and the tile is made again for
/// the next who needs it marked. Who needs the digest needs the mark.
Status unless_served_unmarked(Status marked, TileMaker::Proof proof) {
  if (!marked.has_value() && marked.error().kind == ErrorKind::kNoSpace && proof == TileMaker::Proof::kChecksum) {
    return {};
  }
  return marked;
}

/// A tile's lock, where it is to be had.
class TileLock {
 public:
  TileLock(Env& env, FillingFile& filling, uint32_t tile)
      : env_(env), filling_(filling), tile_(tile), locked_(filling.lock_tile(tile, kTileLockPatience)) {}

  /// Whether no other process can have lost its patience and be making the tile as well.
  [[nodiscard]] bool ours_alone() const { return locked_ && env_.monotonic_ns() - since_ns_ < kOursAloneNs; }

  ~TileLock() {
    if (locked_) {
      filling_.unlock_tile(tile_);
    }
  }
  TileLock(const TileLock&) = delete;
  TileLock& operator=(const TileLock&) = delete;

 private:
  static constexpr int64_t kOursAloneNs = std::chrono::nanoseconds(kTileLockPatience / 2).count();

  Env& env_;
  FillingFile& filling_;
  const uint32_t tile_;
  const bool locked_;
  const int64_t since_ns_ = env_.monotonic_ns();
};

}  // namespace

TileMaker::TileMaker(Env& env, const LayoutPlan& plan, const SourceReader& source, Surveys& surveys,
                     FactorWorkers& workers, FillingFile& filling, Stats& stats)
    : env_(env), plan_(plan), source_(source), surveys_(surveys), workers_(workers), filling_(filling), stats_(stats) {}

Result<std::shared_ptr<const UnstoredTile>> TileMaker::ensure(uint32_t index, Proof proof) const {
  const Tile tile = plan_.tile(index);
  bool marked = false;
  const auto there = [&]() -> Result<bool> {
    const auto mark = filling_.mark_of(index);
    marked = mark.has_value();
    if (!mark) {
      return false;
    }
    stats_.tiles_verified.fetch_add(1, std::memory_order_relaxed);
    return verify(index, tile, *mark, proof);
  };
  QCACHE_TRY_ASSIGN(const bool made_before, there());
  if (made_before) {
    return nullptr;
  }
  const TileLock lock(env_, filling_, index);
  // Another process may have made it while we waited for the lock; or mended what was wrong, but in a complete file.
  if (!marked || !filling_.is_complete()) {
    QCACHE_TRY_ASSIGN(const bool made_meanwhile, there());
    if (made_meanwhile) {
      return nullptr;
    }
  }
  return make(index, tile, proof, [&] { return lock.ours_alone(); });
}

Status TileMaker::add_digest(uint32_t index) const {
  if (const auto mark = filling_.mark_of(index)) {
    if (mark->digest) {
      return {};
    }
    QCACHE_TRY_ASSIGN(const bool good, verify(index, plan_.tile(index), *mark, Proof::kChecksumAndDigest));
    if (good) {
      return {};
    }
  }
  return fail(damaged());
}

Result<bool> TileMaker::verify(uint32_t index, const Tile& tile, const TileMark& mark, Proof proof) const {
  auto& buffers = thread_buffers();
  const size_t stored_count = plan_.group(tile.group)->encoding.stored.size();
  buffers.stored.resize(stored_count);
  for (uint32_t i = 0; i < stored_count; ++i) {
    const std::vector<ByteRange> ranges = plan_.tile_file_ranges(tile, i);
    PageBuffer& bytes = buffers.stored[i];
    bytes.resize(total_size(ranges));
    size_t done = 0;
    for (const ByteRange& range : ranges) {
      QCACHE_TRY_ASSIGN(const size_t got,
                        env_.read_at(filling_.fd(), std::span(bytes).subspan(done, range.size), range.offset));
      done += got;
    }
    bytes.resize(done);  // a file cut short has other sums and is made again
  }
  const TileMark found = mark_for(buffers.stored, mark.digest || proof == Proof::kChecksumAndDigest);
  if ((mark.digest && found.digest != mark.digest) || (mark.crc && found.crc != mark.crc)) {
    if (!filling_.is_complete()) {
      QCACHE_TRY(filling_.unmark(index));
    }
    stats_.tiles_rejected.fetch_add(1, std::memory_order_relaxed);
    spdlog::warn("corrupt: tile {} of {} on disk differs from its {}; it is not served", index,
                 filling_.key().virtual_path, mark.digest ? "SHA-256" : "checksum");
    return false;
  }
  if (!mark.crc) {
    // Trailers are computed from the CRCs of marks: without room for that, the tile is served as one that cannot be
    // stored.
    const Status marked = filling_.mark(index, found);
    if (!marked && marked.error().kind == ErrorKind::kNoSpace && proof == Proof::kChecksum) {
      return false;
    }
    QCACHE_TRY(marked);
  } else if (found.digest && !mark.digest) {
    QCACHE_TRY(unless_served_unmarked(filling_.add_digest(index, *found.digest), proof));
  }
  return true;
}

Status TileMaker::encode(const Tile& tile) const {
  const std::shared_ptr<const Group> group = plan_.group(tile.group);
  const Encoding& encoding = group->encoding;
  const TensorInfo& tensor = plan_.source().tensors[group->tensor];
  const size_t stored_count = encoding.stored.size();
  auto& buffers = thread_buffers();
  buffers.stored.resize(stored_count);
  buffers.slice.resize(stored_count);

  std::optional<Survey> survey;
  if (encoding.survey != nullptr) {
    QCACHE_TRY_ASSIGN(survey, surveys_.of(tile.group));
  }
  std::vector<std::vector<ByteRange>> tile_ranges(stored_count);
  for (size_t i = 0; i < stored_count; ++i) {
    tile_ranges[i] = encoding.stored_ranges(i, tile.units);
    buffers.stored[i].resize(total_size(tile_ranges[i]));
    if (encoding.stored[i].order == UnitOrder::kOnce && !tile_ranges[i].empty()) {
      const std::string bytes = encoding.stored[i].once(survey.value_or(Survey{}));
      std::ranges::copy(std::as_bytes(std::span(bytes)).first(buffers.stored[i].size()), buffers.stored[i].begin());
    }
  }

  if (encoding.factored != nullptr) {
    return factorize(*group, survey ? &*survey : nullptr);
  }

  // A transposed tensor's rows are gathered from all over it: the more rows at a time, the longer the runs.
  const uint64_t units_per_slice =
      tensor.strides.empty()
          ? std::max<uint64_t>(1, kSliceSourceBytes / std::max<uint64_t>(1, encoding.source_bytes_of_unit()))
          : tile.units.count;
  std::vector<std::span<std::byte>> outputs(stored_count);
  for (uint64_t first = tile.units.first; first < tile.units.end(); first += units_per_slice) {
    const UnitRange slice{first, std::min(units_per_slice, tile.units.end() - first)};
    QCACHE_TRY(source_.read(tensor, encoding.source_ranges(slice), buffers.source));
    for (size_t i = 0; i < stored_count; ++i) {
      if (tile_ranges[i].empty() || encoding.stored[i].order == UnitOrder::kOnce) {
        outputs[i] = {};
      } else if (tile_ranges[i].size() == 1) {
        const ByteRange part = encoding.stored_ranges(i, slice).front();
        outputs[i] = std::span(buffers.stored[i]).subspan(part.offset - tile_ranges[i].front().offset, part.size);
      } else {
        buffers.slice[i].resize(total_size(encoding.stored_ranges(i, slice)));
        outputs[i] = buffers.slice[i];
      }
    }
    encoding.encode_units(buffers.source, outputs, survey ? &*survey : nullptr);
    for (size_t i = 0; i < stored_count; ++i) {
      if (tile_ranges[i].size() > 1) {
        scatter(buffers.slice[i], encoding.stored_ranges(i, slice), tile_ranges[i], buffers.stored[i]);
      }
    }
  }
  return {};
}

Status TileMaker::factorize(const Group& group, const Survey* survey) const {
  const Encoding& encoding = group.encoding;
  const TensorInfo& tensor = plan_.source().tensors[group.tensor];
  FactorRequest request;
  request.rank = static_cast<uint32_t>(encoding.stored[kLoraA].shape.at(0));
  request.rows = tensor.shape.at(0);
  request.columns = tensor.shape.at(1);
  request.set_size = factor_set_size(request.rank);
  request.seed = factor_seed(tensor.name);
  auto& buffers = thread_buffers();
  const Status made = workers_.compute(
      request,
      [&](std::span<float> matrix) { return compute_residual(source_, tensor, *encoding.factored, survey, matrix); },
      buffers.stored[kLoraA], buffers.stored[kLoraB]);
  return made ? made : fail(made.error().with_context(fmt::format("no factors of '{}'", tensor.name)));
}

Error TileMaker::damaged() const {
  return {ErrorKind::kCorrupt, 0,
          fmt::format("the cached file of {} is damaged on disk: it is dropped, and made again by who opens it next",
                      filling_.key().virtual_path)};
}

Result<uint64_t> TileMaker::write(const Tile& tile) const {
  const MutexLock lock(writing_);
  const auto& buffers = thread_buffers();
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < buffers.stored.size(); ++i) {
    size_t done = 0;
    for (const ByteRange& range : plan_.tile_file_ranges(tile, i)) {
      QCACHE_TRY(env_.write_at(filling_.fd(), std::span(buffers.stored[i]).subspan(done, range.size), range.offset));
      done += range.size;
    }
    bytes += done;
  }
  return bytes;
}

void TileMaker::punch(const Tile& tile) const {
  for (uint32_t i = 0; i < thread_buffers().stored.size(); ++i) {
    for (const ByteRange& range : plan_.tile_file_ranges(tile, i)) {
      (void)env_.punch_hole(filling_.fd(), range);
    }
  }
}

Result<std::shared_ptr<const UnstoredTile>> TileMaker::make(uint32_t index, const Tile& tile, Proof proof,
                                                            const Alone& alone) const {
  QCACHE_TRY(encode(tile));
  QCACHE_TRY(source_.check(plan_.source().tensors[plan_.group(tile.group)->tensor]));
  // In a complete file nothing is written any more: programs may have it mapped.
  const bool is_fixed = filling_.is_complete();
  const Result<uint64_t> written = is_fixed ? fail(damaged()) : write(tile);
  auto& buffers = thread_buffers();
  const TileMark mark = mark_for(buffers.stored, proof == Proof::kChecksumAndDigest);
  if (written) {
    env_.reached("tile written");
  }
  const Status stored = written ? filling_.mark(index, mark) : Status(fail(written.error()));
  stats_.tiles_quantized.fetch_add(1, std::memory_order_relaxed);
  if (!stored) {
    // Half a tile is of no use, and what it occupies may be what others need to open a file at all.
    if (!is_fixed && !filling_.mark_of(index) && alone()) {
      punch(tile);
    }
    return std::make_shared<const UnstoredTile>(UnstoredTile{std::exchange(buffers.stored, {}), mark, stored.error()});
  }
  stats_.bytes_quantized.fetch_add(*written, std::memory_order_relaxed);
  return nullptr;
}

}  // namespace qcache

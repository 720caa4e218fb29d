#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "core/base/byte_range.h"
#include "core/engine/artifact.h"
#include "core/engine/unstored_tiles.h"

namespace qcache {

/// One read that waits for tiles. It ends once, by whoever claims it first: the last tile, a failed tile, the reader's
/// cancel, or the end of the mount. Thread-safe, but for what only WaitingReads and the one who claims it touch.
class WaitingRead final : public PendingRead {
 public:
  /// `forget` is called when the reader cancels, without any lock of ours, to take it out of its WaitingReads. It keeps
  /// alive what the read needs.
  WaitingRead(ByteRange range, ReadCallback callback, std::function<void(const WaitingRead&)> forget)
      : range_(range), callback_(std::move(callback)), forget_(std::move(forget)) {}

  void cancel() override;

  /// True for the one caller that may run the callback.
  bool claim() { return !claimed_.exchange(true); }
  [[nodiscard]] ByteRange range() const { return range_; }
  [[nodiscard]] const ReadCallback& callback() const { return callback_; }

  /// What it needs of tiles that could not be stored; an error where that could not be kept.
  FromMemory memory;
  Status kept;

 private:
  friend class WaitingReads;

  const ByteRange range_;
  const ReadCallback callback_;
  const std::function<void(const WaitingRead&)> forget_;
  std::atomic<bool> claimed_{false};
  uint32_t missing_ = 0;  // tiles
};

/// The reads of one file that wait for tiles, by those tiles. Not synchronized. What a function returns is to be let go
/// of without the lock that guards this: each may be the last owner of the file.
class WaitingReads {
 public:
  using Reads = std::vector<std::shared_ptr<WaitingRead>>;
  using ByTile = std::multimap<uint32_t, std::shared_ptr<WaitingRead>>;

  void add(uint32_t tile, const std::shared_ptr<WaitingRead>& read);
  [[nodiscard]] bool any() const { return !by_tile_.empty(); }
  [[nodiscard]] bool any_for(uint32_t tile) const { return by_tile_.contains(tile); }
  /// Whether the read waits for no tile (any more).
  [[nodiscard]] static bool has_all(const WaitingRead& read) { return read.missing_ == 0; }

  /// A tile's end: takes the reads that it lets go, which are all that waited for one that was not made, and those that
  /// waited for nothing else. Of a tile that could not be stored each read keeps what it needs. Throws nothing.
  ByTile release(const LayoutPlan& plan, uint32_t tile, const Result<std::shared_ptr<const UnstoredTile>>& made);
  Reads forget(const WaitingRead& read);
  ByTile take_all();

 private:
  ByTile by_tile_;
};

}  // namespace qcache

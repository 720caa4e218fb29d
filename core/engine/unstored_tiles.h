#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "core/base/byte_range.h"
#include "core/base/page_buffer.h"
#include "core/base/result.h"
#include "core/layout/layout_plan.h"
#include "core/store/tile_map.h"

namespace qcache {

/// A tile that was made and cannot be stored, because the disk is full: whoever waits for it is answered from here.
struct UnstoredTile {
  std::vector<PageBuffer> stored;  ///< its bytes of each stored tensor, in kernel order
  TileMark mark;                   ///< what they would be marked with; has the CRCs
  Error why;

  [[nodiscard]] uint64_t size_bytes() const;
};

/// What one read needs of unstored tiles: the bytes it asks for, and what trailers are computed from. Not synchronized.
class FromMemory {
 public:
  /// REQUIRES: `tile` is that tile of `plan`.
  void keep(const LayoutPlan& plan, ByteRange read, uint32_t index, const UnstoredTile& tile);
  /// Puts what it has of `range` over what the file has there.
  void overlay(ByteRange range, std::span<std::byte> out) const;
  /// Null where the tile is not among them.
  [[nodiscard]] const TileMark* mark_of(uint32_t tile) const;

 private:
  std::vector<std::pair<ByteRange, std::vector<std::byte>>> pieces_;
  std::map<uint32_t, TileMark> marks_;
};

/// The unstored tiles of one file that were made last: the kernel asks for a mapping's pages a few at a time, and each
/// tile would be made for every such request. A few MiB, or one tile. Not synchronized.
class UnstoredTiles {
 public:
  void add(uint32_t index, std::shared_ptr<const UnstoredTile> tile);
  /// Null where it is not among them.
  [[nodiscard]] std::shared_ptr<const UnstoredTile> find(uint32_t index) const;
  void erase(uint32_t index);
  void clear() { tiles_.clear(); }

 private:
  static constexpr uint64_t kBytes = uint64_t{8} << 20;
  std::deque<std::pair<uint32_t, std::shared_ptr<const UnstoredTile>>> tiles_;  // the newest first
};

}  // namespace qcache

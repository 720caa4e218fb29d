#pragma once

#include <cstdint>

#include "core/layout/layout_plan.h"

namespace qcache {

/// Decides how many tiles beyond a read to make in advance, from the order in which one file's tiles are asked for.
///
/// A reader that jumps gets exactly what it asks for. One that moves forward gets a window that doubles with every tile
/// it crosses, like the kernel's own read-ahead: making a tile takes longer than copying one, so a sequential reader on
/// an otherwise idle machine must find all cores at work ahead of it. Not synchronized.
class ReadAhead {
 public:
  /// The tiles to make in advance after a read that needed `read` (possibly empty).
  TileSpan after_read(TileSpan read, uint32_t tile_count);

 private:
  static constexpr uint32_t kFirstWindow = 2;
  static constexpr uint32_t kMaxWindow = 32;
  uint32_t next_ = 0;  // the tile after the last read
  uint32_t window_ = 0;
  bool started_ = false;
};

}  // namespace qcache

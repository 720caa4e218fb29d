#include "core/engine/read_ahead.h"

#include <algorithm>

namespace qcache {

TileSpan ReadAhead::after_read(TileSpan read, uint32_t tile_count) {
  if (read.first >= read.end) {
    return {};
  }
  // Reads within the last tile, and into the next one, are one forward motion.
  const bool within = started_ && read.end == next_ && read.first + 1 >= next_;
  const bool forward = started_ && read.end > next_ && read.first <= next_;
  if (forward) {
    window_ = std::clamp(window_ * 2, kFirstWindow, kMaxWindow);
  } else if (!within) {
    window_ = 0;
  }
  started_ = true;
  next_ = read.end;
  return TileSpan{read.end, std::min(tile_count, read.end + window_)};
}

}  // namespace qcache

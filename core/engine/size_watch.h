#pragma once

#include <cstdint>

namespace qcache {

/// When to look whether the cache directory is larger than it may be: while files are made, once more after the last
/// tile (what counts as made may be on its way to the disk), and again after a while where what is too much was in use.
/// Looking takes as long as there are files, so a twentieth of the time at most is spent so, unless that would be less
/// often than every ten seconds. Times are monotonic. One thread.
class SizeWatch {
 public:
  /// `made`: how many bytes have been made so far.
  [[nodiscard]] bool due(uint64_t made, int64_t now_ns) const;
  /// It was looked at from `begun_ns` to `ended_ns`, when `made` was so much; `over`: it is still too large.
  void looked(uint64_t made, bool over, int64_t begun_ns, int64_t ended_ns);

 private:
  uint64_t made_ = 0;
  bool may_grow_ = false;
  bool over_ = false;
  int64_t begun_ns_ = 0;
  int64_t took_ns_ = 0;
};

}  // namespace qcache

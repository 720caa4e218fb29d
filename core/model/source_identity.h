#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/digest.h"
#include "core/base/env.h"
#include "core/base/result.h"

namespace qcache {

/// What tells one state of one source file from any other: where it lies, its size and times, and the
/// digest of the bytes that the plan was made from (a safetensors header; what was read of a
/// torch checkpoint to find its tensors; the whole of a JSON file).
///
/// Not the number of its device: a disk that comes back (at boot, plugged in again, on another server) may have another
/// one, and so have NFS, overlayfs and btrfs each time they are mounted. Who puts another filesystem in its place
/// changes a time or an inode.
struct SourceFileIdentity {
  std::string path;  ///< as opened: links not resolved
  uint64_t inode = 0;
  uint64_t size_bytes = 0;
  int64_t mtime_ns = 0;
  int64_t ctime_ns = 0;
  Sha256Digest header_digest{};

  /// The file was looked for and was not there: no file has neither an inode nor a time. Its coming would matter.
  [[nodiscard]] bool absent() const { return inode == 0 && ctime_ns == 0; }
  bool operator==(const SourceFileIdentity&) const = default;
  /// Whether a fresh stat still shows the same file (the header digest is not looked at).
  [[nodiscard]] bool matches(const FileStat& now) const;
};

/// The state of every file that decides the bytes of a model: weights, index, config.json. Cached bytes are
/// true as long as this is unchanged.
///
/// A file can be rewritten within one tick of its filesystem's clock and keep size and times:
///   1. t0: written, mtime = t0     2. t0+1ms: we stat and read it     3. t0+2ms: rewritten, mtime = t0
/// so an identity captured that soon proves nothing, and must be captured again before bytes made from it are kept or
/// served. It is settled when its times lie a tick before the capture by our wall clock (`settled_at_ns`); and also,
/// whatever the clocks say, when the files had been seen in this very state for a tick of our own monotonic time before
/// the capture: a rewrite since then would have got another time. Only that tells of a file from a machine whose clock
/// is ahead, or from a time when ours was.
struct SourceIdentity {
  std::vector<SourceFileIdentity> files;
  int64_t captured_at_ns = 0;
  int64_t settled_at_ns = 0;
  int64_t capture_began_ns = 0;  ///< monotonic
  int64_t seen_since_ns = 0;     ///< monotonic: from when on all files are known to have been in this state

  [[nodiscard]] bool settled() const;
  /// How long it takes until a capture of the same state is settled.
  [[nodiscard]] int64_t settles_in_ns(Env& env) const;
  /// Takes over since when the files have been seen in this state, where they were in it in an earlier capture.
  void go_on_from(const SourceIdentity& earlier);
  /// One value over all fields of all files (not over the moments).
  [[nodiscard]] Sha256Digest digest() const;
};

/// The moment from which a change to a file with this stat would get another mtime or ctime: its younger
/// time plus the clock granularity of its filesystem (20 ms; 2 s where the times carry no sub-second part,
/// as on FAT and some network filesystems).
[[nodiscard]] int64_t settle_time_ns(const FileStat& stat);

/// Whether all files still match, by stat alone. An error is never "unchanged": a vanished file is
/// kSourceChanged.
Status check_unchanged(Env& env, const SourceIdentity& identity);

}  // namespace qcache

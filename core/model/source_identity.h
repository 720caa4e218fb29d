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
struct SourceFileIdentity {
  std::string path;  ///< as opened: links not resolved
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t size_bytes = 0;
  int64_t mtime_ns = 0;
  int64_t ctime_ns = 0;
  Sha256Digest header_digest{};

  /// The file was looked for and was not there: no filesystem has an inode 0. Its coming would matter.
  [[nodiscard]] bool absent() const { return device == 0 && inode == 0; }
  /// Whether a fresh stat still shows the same file (the header digest is not looked at).
  [[nodiscard]] bool matches(const FileStat& now) const;
};

/// The state of every file that decides the bytes of a model: weights, index, config.json. Cached bytes are
/// true as long as this is unchanged.
///
/// A file can be rewritten within one tick of its filesystem's clock and keep size and times:
///   1. t0: written, mtime = t0     2. t0+1ms: we stat and read it     3. t0+2ms: rewritten, mtime = t0
/// so an identity captured that soon proves nothing. `settled_at_ns` is the first moment at which such a
/// rewrite would show; one captured before that moment must be captured again before bytes made from it are
/// kept or served.
struct SourceIdentity {
  std::vector<SourceFileIdentity> files;
  int64_t captured_at_ns = 0;
  int64_t settled_at_ns = 0;

  [[nodiscard]] bool settled() const { return captured_at_ns >= settled_at_ns; }
  /// One value over all fields of all files (not over the two moments).
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

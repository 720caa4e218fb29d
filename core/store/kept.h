#pragma once

#include <cstdint>
#include <optional>

#include "core/base/env.h"
#include "core/base/result.h"
#include "core/store/record.h"

namespace qcache {

/// What a record tells of a file that its bytes do not, and that must outlive the record while the bytes are looked
/// through: what people have set, and how the file was used.
///
/// Lies in the header of the map of a filling file that was complete before (Store::demote()), so that it lives as long
/// as the bytes, whoever is killed meanwhile. Every process reads it there when it needs it.
struct Kept {
  int64_t created_ns = 0;
  int64_t accessed_ns = 0;
  uint64_t hits = 0;
  bool pinned = false;

  static Kept of(const Record& record);
  /// Puts it back into the record of the file when it is complete again, which may have been read since.
  void restore(Record& record) const;
};

/// Where in the map's header; what comes before is the TileMap's.
inline constexpr uint64_t kKeptOffset = 3840;
inline constexpr uint64_t kKeptBytes = 256;

/// Writes it into a map that TileMap::format() has made. REQUIRES: the directory lock is held, or nobody else knows of
/// the map yet.
Status write_kept(Env& env, int map_fd, const Kept& kept);
/// Nothing where the file was not complete before (or what was kept is damaged).
Result<std::optional<Kept>> read_kept(Env& env, int map_fd);

}  // namespace qcache

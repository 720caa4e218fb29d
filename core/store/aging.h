#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/store/store.h"

namespace qcache {

/// When cached files are dropped, beside stale ones. Files in use and pinned files never are.
struct AgingPolicy {
  std::optional<std::chrono::seconds> max_age = std::chrono::hours(24 * 7);  ///< since the last access
  std::optional<uint64_t> max_bytes;  ///< on disk; the least recently used go first
};

/// A file to drop, and why: "not read for 8d", "over the size limit".
struct Victim {
  CacheEntry entry;
  std::string reason;
};

/// Chooses what to drop: pure. Stale files, whatever their age (CacheEntry::stale), and expired ones; then, while the
/// rest is above max_bytes, the least recently used. A filling file's last access is the mtime of its map.
[[nodiscard]] std::vector<Victim> choose_victims(const std::vector<CacheEntry>& entries, const AgingPolicy& policy,
                                                 int64_t now_ns);

struct AgingReport {
  std::vector<Victim> dropped;  ///< with dry_run: what would be
  uint64_t bytes = 0;
  uint64_t kept_bytes = 0;
};

/// Applies the policy to a cache directory, and removes leftovers of crashes (sealed files without a record, records
/// without a file). What is in use counts as read now. Works beside running mounts. With `dry_run` nothing is changed.
Result<AgingReport> apply_aging(Store& store, const AgingPolicy& policy, bool dry_run);

}  // namespace qcache

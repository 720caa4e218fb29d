#include "core/engine/cached_ranks.h"

#include <utility>

namespace qcache {

std::vector<CachedRanks::File> CachedRanks::all() {
  constexpr int64_t kKeptNs = 1'000'000'000;
  constexpr int kLooks = 3;  // more than one where files are sealed or dropped while we look
  std::vector<File> files;
  for (int looks = 0; looks < kLooks; ++looks) {
    uint64_t changes = 0;
    {
      const MutexLock lock(mutex_);
      if (env_.monotonic_ns() < holds_until_ns_) {
        return found_;
      }
      changes = changes_;
    }
    files.clear();
    const auto entries = store_.entries();
    for (const CacheEntry& entry : entries.value_or(std::vector<CacheEntry>())) {
      if (auto path = parse_artifact_path(entry.record.virtual_path); path && path->rank > 0) {
        files.push_back({std::move(*path), base_file_name(entry.record.file)});
      }
    }
    const MutexLock lock(mutex_);
    if (changes == changes_) {
      found_ = files;
      holds_until_ns_ = env_.monotonic_ns() + kKeptNs;
      break;
    }
  }
  return files;
}

void CachedRanks::changed() {
  const MutexLock lock(mutex_);
  holds_until_ns_ = 0;
  ++changes_;
}

}  // namespace qcache

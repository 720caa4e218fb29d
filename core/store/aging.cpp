#include "core/store/aging.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "core/base/units.h"

namespace qcache {
namespace {

constexpr int64_t kNanosecondsPerSecond = 1'000'000'000;

// Nothing where the file was last read in the future, as after a correction of the clock.
std::optional<std::chrono::seconds> age_of(const CacheEntry& entry, int64_t now_ns) {
  int64_t age_ns = 0;
  if (__builtin_sub_overflow(now_ns, std::max<int64_t>(entry.record.accessed_ns, 0), &age_ns) || age_ns < 0) {
    return std::nullopt;
  }
  return std::chrono::seconds(age_ns / kNanosecondsPerSecond);
}

}  // namespace

std::vector<Victim> choose_victims(const std::vector<CacheEntry>& entries, const AgingPolicy& policy, int64_t now_ns) {
  std::vector<Victim> victims;
  std::vector<const CacheEntry*> rest;  // may be dropped, but has not expired
  uint64_t rest_bytes = 0;              // of all that stays so far
  for (const CacheEntry& entry : entries) {
    const bool droppable = !entry.in_use && !entry.record.pinned;
    const auto age = age_of(entry, now_ns);
    if (droppable && entry.stale) {
      victims.push_back({entry, "made of an earlier state of its model"});
      continue;
    }
    if (droppable && policy.max_age.has_value() && age.has_value() && *age >= *policy.max_age) {
      victims.push_back({entry, fmt::format("not read for {}", format_duration(*age))});
      continue;
    }
    rest_bytes += entry.disk_bytes;
    if (droppable) {
      rest.push_back(&entry);
    }
  }
  if (policy.max_bytes.has_value()) {
    std::stable_sort(rest.begin(), rest.end(), [](const CacheEntry* a, const CacheEntry* b) {
      return a->record.accessed_ns < b->record.accessed_ns;
    });
    for (const CacheEntry* entry : rest) {
      if (rest_bytes <= *policy.max_bytes) {
        break;
      }
      rest_bytes -= entry->disk_bytes;
      victims.push_back({*entry, fmt::format("over the size limit of {}", format_size(*policy.max_bytes))});
    }
  }
  return victims;
}

Result<AgingReport> apply_aging(Store& store, const AgingPolicy& policy, bool dry_run) {
  AgingReport report;
  QCACHE_TRY_ASSIGN(auto leftovers, store.remove_leftovers(dry_run));
  for (CacheEntry& entry : leftovers) {
    report.bytes += entry.disk_bytes;
    report.dropped.push_back({std::move(entry), "left behind by a crash"});
  }
  QCACHE_TRY_ASSIGN(const auto entries, store.entries());
  for (const CacheEntry& entry : entries) {
    report.kept_bytes += entry.disk_bytes;
  }
  // Whoever holds a lease uses the file, also where the daemon that opened it was killed.
  std::vector<AccessUpdate> held;
  for (const CacheEntry& entry : entries) {
    if (entry.sealed && entry.in_use) {
      held.push_back({entry.record.file, store.env().now_ns(), 0});
    }
  }
  if (!held.empty() && !dry_run) {
    if (const Status renewed = store.catalog().touch(held); !renewed.has_value()) {
      spdlog::warn("cannot note which files are in use: {}", renewed.error().message);
    }
  }
  for (Victim& victim : choose_victims(entries, policy, store.env().now_ns())) {
    const CacheEntry& entry = victim.entry;
    if (!dry_run) {
      const auto dropped = entry.sealed ? store.drop_sealed(entry.record, victim.reason, WhenInUse::kKeep)
                                        : store.drop_filling(entry.record.file, victim.reason, WhenInUse::kKeep);
      if (!dropped.has_value()) {
        // One file that cannot be removed must not keep the others.
        spdlog::warn("cannot drop {} ({}): {}", entry.record.virtual_path, victim.reason, dropped.error().message);
      }
      if (!dropped.has_value() || !dropped->has_value()) {
        continue;
      }
    }
    report.bytes += entry.disk_bytes;
    report.kept_bytes -= entry.disk_bytes;
    report.dropped.push_back(std::move(victim));
  }
  return report;
}

}  // namespace qcache

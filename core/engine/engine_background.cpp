// What the engine does by the clock.

#include <algorithm>
#include <utility>

#include "core/base/log.h"
#include "core/base/memory.h"
#include "core/base/units.h"
#include "core/engine/engine.h"

namespace qcache {
namespace {

// How long an unused filling artifact stays open. Short, because its lease keeps other processes' aging away.
constexpr int64_t kLingerMs = 10'000;
// Of one whose plan takes megabytes. Longer than it takes from finding it to counting as its reader: one that is let go
// in between would be filled and sealed by nobody.
constexpr int64_t kLargeLingerMs = 300;
// Of one whose warming was taken back: whoever has just stopped it, or heard that the disk is full, may want to drop
// it.
constexpr int64_t kCalledOffLingerMs = 1'000;
constexpr std::chrono::seconds kAccessFlushInterval{1};
// What other processes have sealed and could not hash.
constexpr std::chrono::hours kAmendInterval{1};
constexpr std::chrono::seconds kSpaceCheckInterval{60};
// How much of a long use is forgotten where this process is killed.
constexpr std::chrono::hours kRenewalInterval{1};
// Free space below which a user should hear of it.
constexpr uint64_t kLowFreeBytes = uint64_t{1} << 30;
constexpr double kLowFreeShare = 0.05;
constexpr const char* kMaintenance = "maintenance";

}  // namespace

void Engine::add_tasks() {
  const auto always = [](auto work) {
    return [work = std::move(work)]() -> Status {
      work();
      return {};
    };
  };
  maintenance_.add({.name = kMaintenance, .run = always([this] { tend_workers(); })});
  maintenance_.add({.name = kMaintenance, .run = always([this] { tick_artifacts(); })});
  maintenance_.add({.name = kMaintenance, .run = always([this] { sealer_.tick(); })});
  maintenance_.add(
      {.name = kMaintenance, .interval = kRenewalInterval, .at_once = false, .run = always([this] { renew_uses(); })});
  maintenance_.add({.name = kMaintenance, .interval = kAmendInterval, .run = [this] { return amender_.look(); }});
  maintenance_.add({.name = kMaintenance,
                    .interval = kAccessFlushInterval,
                    .at_once = false,
                    .run = always([this] { flush_accesses(); }),
                    .urgent = [this] { return open_files_.urgent(); }});
  maintenance_.add(
      {.name = kMaintenance, .interval = kSpaceCheckInterval, .run = always([this] { check_free_space(); })});
  if (options_.aging_interval.count() == 0) {
    return;  // never by itself
  }
  maintenance_.add({.name = "aging", .run = [this] { return keep_to_size(); }});
  maintenance_.add({.name = "aging", .interval = options_.aging_interval, .at_once = false, .run = [this]() -> Status {
                      QCACHE_TRY(age());
                      return {};
                    }});
}

void Engine::tend_workers() {
  workshop_.pool().replace_stopped();
  workshop_.factor_pool().replace_stopped();
  workshop_.seal_pool().replace_stopped();
  workshop_.idle_pool().replace_stopped();
  workshop_.factor_workers().end_idle();
}

void Engine::tick_artifacts() {
  bool any_large = false;
  auto idle = live_.take_if([&](const FillingArtifact& artifact) {
    const bool large = artifact.plan().group_count() > kManyTensors;
    const int64_t linger_ms = large ? kLargeLingerMs : artifact.is_called_off() ? kCalledOffLingerMs : kLingerMs;
    const bool is_idle = artifact.idle_ms() > linger_ms;
    any_large = any_large || (large && is_idle);
    return is_idle;
  });
  for (auto& artifact : idle) {
    let_go(std::move(artifact));
  }
  if (any_large) {
    return_freed_memory();
  }
  for (const auto& artifact : live_.all()) {
    // Removed by another process, or sealed by it: nobody will find what would be made from here on. (One that is all
    // made may be between its two names, as it is being sealed.)
    const bool may_be_gone = artifact->fills() || (!artifact->in_use() && !artifact->all_made());
    if (may_be_gone && !artifact->filling().names_lead_here().value_or(true)) {
      artifact->drop();
      live_.forget(artifact);
    }
    artifact->tick();
  }
}

void Engine::renew_uses() {
  open_files_.renew(env_.now_ns());
  for (const auto& artifact : live_.all()) {
    if (artifact->in_use()) {
      artifact->filling().note_use();
    }
  }
}

void Engine::flush_accesses() {
  const OpenFiles::Uses uses = open_files_.take();
  if (uses.updates.empty()) {
    return;
  }
  if (const Status touched = store_->catalog().touch(uses.updates); !touched) {
    errors_.add("catalog", touched.error().with_context("cannot record accesses"), env_.now_ns());
  }
}

Status Engine::keep_to_size() {
  const std::optional<uint64_t>& most = options_.aging.max_bytes;
  const uint64_t made = stats_.bytes_quantized.load(std::memory_order_relaxed);
  const int64_t begun_ns = env_.monotonic_ns();
  if (!most || !size_watch_.due(made, begun_ns)) {
    return {};
  }
  const auto totals = store_->totals();
  bool over = totals && totals->disk_bytes > *most;
  Status aged;
  if (over) {
    const auto report = age();
    aged = report ? Status() : fail(report.error());
    over = !report || report->kept_bytes > *most;
  }
  size_watch_.looked(made, over, begun_ns, env_.monotonic_ns());
  return aged;
}

void Engine::check_free_space() {
  const auto space = env_.space(store_->directory().path());
  if (!space) {
    return;
  }
  const auto floor =
      std::max(kLowFreeBytes, static_cast<uint64_t>(kLowFreeShare * static_cast<double>(space->total_bytes)));
  const bool low = space->available_bytes < floor;
  if (low && !low_space_) {
    spdlog::warn("low space: {} free below {}; drop files with 'qcache gc --max-size' or 'rm', or set --max-size",
                 format_size(space->available_bytes), store_->directory().path());
  }
  low_space_ = low;
}

}  // namespace qcache

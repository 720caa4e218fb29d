// What the engine does in the background: sealing, which hashes and publishes complete files (seconds of work that must
// not take a worker from waiting readers), and maintenance, which does everything that is due by the clock.

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

#include "core/base/contain_exceptions.h"
#include "core/base/log.h"
#include "core/base/memory.h"
#include "core/base/units.h"
#include "core/engine/engine.h"

namespace qcache {
namespace {

constexpr std::chrono::milliseconds kTick{250};
// How long an unused filling artifact stays open. Short, because its lease keeps other processes' aging away.
constexpr int64_t kLingerMs = 10'000;
// Of one whose plan takes megabytes. Longer than it takes from finding it to counting as its reader: one that is let go
// in between would be filled and sealed by nobody.
constexpr int64_t kLargeLingerMs = 300;
// Of one whose warming was taken back: whoever has just stopped it, or heard that the disk is full, may want to drop
// it.
constexpr int64_t kCalledOffLingerMs = 1'000;
constexpr std::chrono::seconds kAccessFlushInterval{1};
constexpr std::chrono::seconds kSpaceCheckInterval{60};
// How much of a long use is forgotten where this process is killed.
constexpr int64_t kRenewalNs = int64_t{3600} * 1'000'000'000;
// Free space below which a user should hear of it.
constexpr uint64_t kLowFreeBytes = uint64_t{1} << 30;
constexpr double kLowFreeShare = 0.05;
// Of the sealer, which works when a program has just loaded its model and begins to compute with it.
constexpr int kSealerNice = 10;

}  // namespace

void Engine::submit_seal(const std::shared_ptr<FillingArtifact>& artifact) {
  workshop_.seal_pool().submit(
      Priority::kFill, [this, artifact] { run_seal(artifact); }, artifact->source_device());
}

void Engine::run_seal(const std::shared_ptr<FillingArtifact>& artifact) {
  // Linux keeps this per thread, and lets everybody lower it.
  (void)::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kSealerNice);
  if (artifact->filling().try_lock_seal()) {
    if (const Status done = contain_exceptions("cannot seal the cached file", [&] { return seal(artifact); }); !done) {
      errors_.add(artifact->name().virtual_path(), done.error(), env_.now_ns());
      artifact->sealing_failed(done.error());
    }
    artifact->filling().unlock_seal();
    return;
  }
  // Another process is sealing it. Should that process die, it is our turn.
  const MutexLock lock(mutex_);
  seal_again_.push_back(artifact);
}

Status Engine::seal(const std::shared_ptr<FillingArtifact>& artifact) {
  if (const auto current = artifact->filling().names_lead_here(); current && !*current) {
    forget(artifact);  // sealed by another process, or dropped
    return {};
  }
  const auto sealed = artifact->seal(*store_, [&] {
    const MutexLock lock(mutex_);
    return !stopping_ && !artifact->dropped();
  });
  if (!sealed && sealed.error().kind == ErrorKind::kInterrupted) {
    return {};  // unmounted meanwhile: the complete filling file is sealed by a later run; or dropped
  }
  if (!sealed) {
    return fail(sealed.error());
  }
  if (artifact->name().rank > 0) {
    forget_cached_ranks();
  }
  if (*sealed) {
    stats_.files_sealed.fetch_add(1, std::memory_order_relaxed);
  }
  forget(artifact);
  return {};
}

void Engine::run_maintenance() {
  using Clock = std::chrono::steady_clock;
  Clock::time_point next_flush = Clock::now() + kAccessFlushInterval;
  int64_t next_renewal_ns = env_.monotonic_ns() + kRenewalNs;
  Clock::time_point next_space_check = Clock::now();
  Clock::time_point next_aging = Clock::now() + options_.aging_interval;
  for (;;) {
    {
      const MutexLock lock(mutex_);
      if (!stopping_) {
        wake_.wait_for(mutex_, kTick);
      }
      if (stopping_) {
        return;
      }
    }
    const Status done = contain_exceptions("cannot do what is due", [&]() -> Status {
      workshop_.pool().replace_stopped();
      workshop_.factor_pool().replace_stopped();
      workshop_.seal_pool().replace_stopped();
      tick_artifacts();
      workshop_.factor_workers().end_idle();
      const Clock::time_point now = Clock::now();
      if (env_.monotonic_ns() >= next_renewal_ns) {
        next_renewal_ns = env_.monotonic_ns() + kRenewalNs;
        renew_uses();
      }
      if (now >= next_flush || open_files_.urgent()) {
        next_flush = now + kAccessFlushInterval;
        flush_accesses();
      }
      keep_to_size();
      if (now >= next_space_check) {
        next_space_check = now + kSpaceCheckInterval;
        check_free_space();
      }
      if (options_.aging_interval.count() > 0 && now >= next_aging) {
        next_aging = now + options_.aging_interval;
        if (const auto report = age(); !report) {
          errors_.add("aging", report.error(), env_.now_ns());
        }
      }
      return {};
    });
    if (!done) {
      errors_.add("maintenance", done.error(), env_.now_ns());
    }
  }
}

void Engine::tick_artifacts() {
  std::vector<std::shared_ptr<FillingArtifact>> artifacts;
  std::vector<std::shared_ptr<FillingArtifact>> idle;
  std::vector<std::shared_ptr<FillingArtifact>> to_seal;
  bool any_large = false;
  {
    const MutexLock lock(mutex_);
    to_seal.swap(seal_again_);
    for (auto it = live_.begin(); it != live_.end();) {
      const bool large = it->second->plan().group_count() > kManyTensors;
      const int64_t linger_ms = large ? kLargeLingerMs : it->second->is_called_off() ? kCalledOffLingerMs : kLingerMs;
      if (it->second->idle_ms() > linger_ms) {
        any_large = any_large || large;
        idle.push_back(retire(it->second));
        it = live_.erase(it);
      } else {
        artifacts.push_back((it++)->second);
      }
    }
  }
  for (const auto& artifact : to_seal) {
    submit_seal(artifact);
  }
  for (auto& artifact : idle) {
    let_go(std::move(artifact));
  }
  idle.clear();
  if (any_large) {
    return_freed_memory();
  }
  for (const auto& artifact : artifacts) {
    // Removed by another process, or sealed by it: nobody will find what would be made from here on. (One that is
    // complete may be between its two names, as it is being sealed.)
    const bool may_be_gone = artifact->fills() || (!artifact->in_use() && !artifact->complete());
    if (may_be_gone && !artifact->filling().names_lead_here().value_or(true)) {
      artifact->drop();
      forget(artifact);
    }
    artifact->tick();
  }
}

void Engine::renew_uses() {
  open_files_.renew(env_.now_ns());
  std::vector<std::shared_ptr<FillingArtifact>> artifacts;
  {
    const MutexLock lock(mutex_);
    for (const auto& [file, artifact] : live_) {
      artifacts.push_back(artifact);
    }
  }
  for (const auto& artifact : artifacts) {
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

void Engine::keep_to_size() {
  const std::optional<uint64_t>& most = options_.aging.max_bytes;
  const uint64_t made = stats_.bytes_quantized.load(std::memory_order_relaxed);
  const int64_t begun_ns = env_.monotonic_ns();
  if (!most || options_.aging_interval.count() == 0 || !size_watch_.due(made, begun_ns)) {
    return;
  }
  const auto totals = store_->totals();
  bool over = totals && totals->disk_bytes > *most;
  if (over) {
    const auto report = age();
    if (!report) {
      errors_.add("aging", report.error(), env_.now_ns());
    }
    over = !report || report->kept_bytes > *most;
  }
  size_watch_.looked(made, over, begun_ns, env_.monotonic_ns());
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

#include "core/engine/sealer.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "core/base/contain_exceptions.h"

namespace qcache {
namespace {

// It works when a program has just loaded its model and begins to compute with it.
constexpr int kNice = 10;
// Without a user, and what fails is given up: a later run finds the complete file.
constexpr int64_t kLingerMs = 10'000;

}  // namespace

Result<SealOutcome> try_to_seal(Store& store, FillingArtifact& artifact, const KeepGoing& keep_going,
                                std::optional<Record>* record) {
  FillingFile& filling = artifact.filling();
  const bool ours = filling.try_lock_seal();
  auto outcome = [&]() -> Result<SealOutcome> {
    QCACHE_TRY_ASSIGN(const bool current, filling.names_lead_here());
    if (!current) {
      return SealOutcome::kDoneElsewhere;
    }
    if (!ours) {
      return SealOutcome::kBusyElsewhere;
    }
    QCACHE_TRY_ASSIGN(auto sealed, artifact.seal(store, keep_going));
    if (!sealed) {
      return SealOutcome::kDoneElsewhere;
    }
    if (record != nullptr) {
      *record = std::move(sealed);
    }
    return SealOutcome::kDoneHere;
  }();
  if (ours) {
    filling.unlock_seal();
  }
  return outcome;
}

void Sealer::add(std::shared_ptr<FillingArtifact> artifact) {
  const MutexLock lock(mutex_);
  const Time at = now();
  const auto known = std::ranges::find_if(entries_, [&](const auto& entry) { return entry->artifact == artifact; });
  if (known != entries_.end()) {
    (*known)->complete_since = at;
    (*known)->not_before = at;
    (*known)->pause = kFirstPause;
  } else {
    entries_.push_back(std::make_shared<Entry>(Entry{std::move(artifact), at, at}));
  }
  start_due(at);
}

void Sealer::tick() {
  Entries given_up;  // each may be the last owner of its artifact
  const MutexLock lock(mutex_);
  const auto hopeless = std::ranges::partition(entries_, [](const auto& entry) {
    return entry->runs || !entry->failed || entry->artifact->idle_ms() < kLingerMs;
  });
  given_up.assign(hopeless.begin(), hopeless.end());
  entries_.erase(hopeless.begin(), hopeless.end());
  start_due(now());
}

void Sealer::reader_left() {
  const MutexLock lock(mutex_);
  start_due(now());
}

void Sealer::start_due(Time at) {
  for (const auto& entry : entries_) {
    if (stopping_ || entry->runs || at < entry->not_before || !entry->artifact->complete() ||
        entry->artifact->holds_back_sealing(entry->complete_since)) {
      continue;
    }
    pool_.submit(
        Priority::kFill, [this, entry] { run(entry); }, entry->artifact->source_device());
    entry->runs = true;
  }
}

void Sealer::run(const std::shared_ptr<Entry>& entry) {
  // Linux keeps this per thread, and lets everybody lower it.
  (void)::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kNice);
  const std::shared_ptr<FillingArtifact> artifact = entry->artifact;
  const auto outcome = contain_exceptions("cannot seal the cached file", [&] {
    return try_to_seal(store_, *artifact, [&] {
      const MutexLock lock(mutex_);
      return !stopping_ && !artifact->dropped();
    });
  });
  // Unmounted meanwhile: the complete filling file is sealed by a later run; or dropped.
  const bool interrupted = !outcome && outcome.error().kind == ErrorKind::kInterrupted;
  const bool is_over = interrupted || (outcome && *outcome != SealOutcome::kBusyElsewhere);
  if (!outcome && !interrupted) {
    artifact->note_seal_failure(outcome.error());
    observer_.on_seal_failure(artifact, outcome.error());
  }
  {
    const MutexLock lock(mutex_);
    entry->runs = false;
    entry->failed = !outcome;
    if (is_over) {
      std::erase(entries_, entry);
    } else {
      entry->not_before = now() + (outcome ? std::chrono::seconds::zero() : entry->pause);
      entry->pause = outcome ? kFirstPause : std::min(2 * entry->pause, kLongestPause);
    }
  }
  if (outcome && is_over) {
    observer_.on_sealed(artifact, *outcome);
  }
}

void Sealer::stop() {
  const MutexLock lock(mutex_);
  stopping_ = true;
}

}  // namespace qcache

#include "core/engine/sealer.h"

#include <algorithm>
#include <utility>

#include "core/base/contain_exceptions.h"
#include "core/engine/idle_thread.h"

namespace qcache {
namespace {

// Without a user, and what fails is given up: a later run finds the complete file.
constexpr int64_t kLingerMs = 10'000;

/// Takes the right to seal a file, where its names still lead to it. kDone: it is ours, until unlock_seal().
Result<SealOutcome> take_right(FillingFile& filling) {
  const bool ours = filling.try_lock_seal();
  const auto current = filling.names_lead_here();
  if (current && *current) {
    return ours ? SealOutcome::kDone : SealOutcome::kBusyElsewhere;
  }
  if (ours) {
    filling.unlock_seal();
  }
  QCACHE_TRY(current);
  return SealOutcome::kGone;
}

}  // namespace

Result<SealOutcome> try_to_seal(Store& store, FillingArtifact& artifact, std::optional<Record>& record) {
  FillingFile& filling = artifact.filling();
  QCACHE_TRY_ASSIGN(const SealOutcome right, take_right(filling));
  if (right != SealOutcome::kDone) {
    return right;
  }
  const Status sealed = [&]() -> Status {
    QCACHE_TRY(artifact.set_complete());
    QCACHE_TRY_ASSIGN(const HashedFile hashed, artifact.prepare_seal(store, {}));
    QCACHE_TRY_ASSIGN(record, artifact.commit_seal(store, hashed));
    return {};
  }();
  filling.unlock_seal();
  QCACHE_TRY(sealed);
  return record ? SealOutcome::kDone : SealOutcome::kGone;
}

void Sealer::add(std::shared_ptr<FillingArtifact> artifact) {
  const MutexLock lock(mutex_);
  const Time at = now();
  const auto known = std::ranges::find_if(entries_, [&](const auto& entry) { return entry->artifact == artifact; });
  if (known != entries_.end()) {
    (*known)->all_made_since = at;
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
    const FillingArtifact& artifact = *entry->artifact;
    if (stopping_ || entry->runs || at < entry->not_before || !artifact.all_made()) {
      continue;
    }
    const uint64_t source = artifact.source_device();
    if (artifact.completed_ns() == 0) {
      workshop_.pool().submit(Priority::kDemand, [this, entry] { complete(entry); });
    } else if (artifact.seals_at_once()) {
      workshop_.seal_pool().submit(
          Priority::kDemand, [this, entry] { hash(entry); }, source);
    } else if (!artifact.holds_back_sealing(entry->all_made_since)) {
      workshop_.idle_pool().submit(
          Priority::kFill,
          [this, entry] {
            make_thread_idle();
            hash(entry);
          },
          source);
    } else {
      continue;
    }
    entry->runs = true;
  }
}

bool Sealer::may_go_on(const FillingArtifact& artifact) {
  const MutexLock lock(mutex_);
  return !stopping_ && !artifact.dropped();
}

void Sealer::complete(const std::shared_ptr<Entry>& entry) {
  FillingArtifact& artifact = *entry->artifact;
  const auto outcome = contain_exceptions("cannot complete the cached file", [&]() -> Result<SealOutcome> {
    QCACHE_TRY_ASSIGN(const SealOutcome right, take_right(artifact.filling()));
    if (right == SealOutcome::kDone) {
      const Status completed = artifact.set_complete();
      artifact.filling().unlock_seal();
      QCACHE_TRY(completed);
    }
    return right;
  });
  ended(entry, outcome, outcome && *outcome == SealOutcome::kGone);
}

void Sealer::hash(const std::shared_ptr<Entry>& entry) {
  FillingArtifact& artifact = *entry->artifact;
  const auto outcome = contain_exceptions("cannot seal the cached file", [&]() -> Result<SealOutcome> {
    QCACHE_TRY_ASSIGN(const SealOutcome right, take_right(artifact.filling()));
    if (right != SealOutcome::kDone) {
      return right;
    }
    entry->has_right = true;
    QCACHE_TRY_ASSIGN(HashedFile hashed, artifact.prepare_seal(store_, [&] { return may_go_on(artifact); }));
    workshop_.seal_pool().submit(Priority::kDemand,
                                 [this, entry, hashed = std::move(hashed)] { commit(entry, hashed); });
    return SealOutcome::kDone;
  });
  if (!outcome || *outcome != SealOutcome::kDone) {
    ended(entry, outcome, outcome && *outcome == SealOutcome::kGone);
  }
}

void Sealer::commit(const std::shared_ptr<Entry>& entry, const HashedFile& hashed) {
  std::optional<Record> record;
  const auto outcome = contain_exceptions("cannot seal the cached file", [&]() -> Result<SealOutcome> {
    QCACHE_TRY_ASSIGN(record, entry->artifact->commit_seal(store_, hashed));
    return record ? SealOutcome::kDone : SealOutcome::kGone;
  });
  ended(entry, outcome, outcome.has_value(), record ? &*record : nullptr);
}

void Sealer::ended(const std::shared_ptr<Entry>& entry, const Result<SealOutcome>& outcome, bool is_last,
                   const Record* record) {
  const std::shared_ptr<FillingArtifact> artifact = entry->artifact;
  if (std::exchange(entry->has_right, false)) {
    artifact->filling().unlock_seal();
  }
  // Unmounted meanwhile: the complete file is sealed by a later run; or dropped.
  const bool interrupted = !outcome && outcome.error().kind == ErrorKind::kInterrupted;
  const bool hopeless = interrupted || (!outcome && outcome.error().kind == ErrorKind::kCorrupt);
  if (!outcome && !interrupted) {
    artifact->note_seal_failure(outcome.error());
    observer_.on_seal_failure(artifact, outcome.error());
  }
  {
    const MutexLock lock(mutex_);
    const Time at = now();
    entry->runs = false;
    entry->failed = !outcome;
    if (is_last || hopeless) {
      std::erase(entries_, entry);
    } else if (outcome && *outcome == SealOutcome::kDone) {
      start_due(at);
    } else {
      entry->not_before = at + (outcome ? std::chrono::seconds::zero() : entry->pause);
      entry->pause = outcome ? kFirstPause : std::min(2 * entry->pause, kLongestPause);
    }
  }
  if (is_last) {
    observer_.on_sealed(artifact, record);
  }
}

void Sealer::stop() {
  const MutexLock lock(mutex_);
  stopping_ = true;
}

}  // namespace qcache

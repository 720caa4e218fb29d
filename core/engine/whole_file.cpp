#include "core/engine/whole_file.h"

#include <chrono>
#include <optional>
#include <thread>
#include <utility>

#include "core/base/mutex.h"
#include "core/engine/amender.h"
#include "core/engine/filling_artifact.h"
#include "core/engine/plan_cache.h"
#include "core/engine/sealer.h"

namespace qcache {
namespace {

constexpr std::chrono::milliseconds kSealRetry{50};

/// Waits for the end of a fill, good or bad.
class FillEnd final : public FillingObserver {
 public:
  void on_all_made(const std::shared_ptr<FillingArtifact>& /*artifact*/) override { end(Status()); }
  void on_failure(const std::shared_ptr<FillingArtifact>& /*artifact*/, const Error& error) override {
    end(fail(error));
  }

  Status wait() QCACHE_EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    while (!ended_) {
      changed_.wait(mutex_);
    }
    return *ended_;
  }

 private:
  void end(Status status) QCACHE_EXCLUDES(mutex_) {
    {
      const MutexLock lock(mutex_);
      if (!ended_) {
        ended_ = std::move(status);
      }
    }
    changed_.notify_all();
  }

  Mutex mutex_;
  CondVar changed_;
  std::optional<Status> ended_ QCACHE_GUARDED_BY(mutex_);
};

/// Nothing where another process has sealed or dropped it meanwhile.
Result<std::optional<Record>> seal(Store& store, FillingArtifact& artifact) {
  std::optional<Record> record;
  for (;;) {
    QCACHE_TRY_ASSIGN(const SealOutcome outcome, try_to_seal(store, artifact, record));
    if (outcome != SealOutcome::kBusyElsewhere) {
      return record;
    }
    std::this_thread::sleep_for(kSealRetry);
  }
}

Result<std::optional<Record>> fill_and_seal(Store& store, const ArtifactName& name, const FillingKey& key,
                                            std::shared_ptr<const LayoutPlan> plan, const OpenSource& open_source) {
  // The jobs refer to all of these: the workshop, whose end waits for them, goes first.
  Stats stats;
  FillEnd end;
  QCACHE_TRY_ASSIGN(std::unique_ptr<SourceReader> source, open_source(stats));
  QCACHE_TRY_ASSIGN(std::shared_ptr<FillingFile> pair, store.open_filling(key));
  if (!pair) {
    return std::optional<Record>();
  }
  Workshop workshop(0);
  const auto artifact = std::make_shared<FillingArtifact>(name, std::move(plan), std::move(source), std::move(pair),
                                                          store.env(), workshop, stats, end);
  artifact->set_warm(true);
  artifact->tick();  // a file without tiles is complete from the start
  const Status filled = end.wait();
  artifact->abandon();
  workshop.stop();
  QCACHE_TRY(filled);
  QCACHE_TRY_ASSIGN(auto record, seal(store, *artifact));
  if (record) {
    QCACHE_TRY(amend_record(store, *record, [&](const Record& /*record*/) { return artifact->quality_probe(); }, {}));
  }
  return record;
}

}  // namespace

Result<Record> make_whole_file(Store& store, ArtifactName name, const std::shared_ptr<const SourceModel>& model,
                               const OpenSource& open_source) {
  name.component = model->component;
  const Sha256Digest recipe = recipe_of(name, *model);
  PlanCache plans;
  QCACHE_TRY_ASSIGN(const std::shared_ptr<const LayoutPlan> plan, plans.plan(name, model, recipe));
  const std::string base = base_file_name_of(name, model->path);
  const FillingKey key{base, name.virtual_path(), recipe, plan->size_bytes(), plan->tile_count()};
  // More than two need a file that others drop and make over and over.
  constexpr int kLooks = 5;
  for (int looks = 0; looks < kLooks; ++looks) {
    SealedFile sealed;
    QCACHE_TRY_ASSIGN(const SealedState state, store.find_sealed(base, recipe, sealed));
    if (state == SealedState::kTrusted) {
      return std::move(sealed.record);
    }
    if (state == SealedState::kSuspect) {
      QCACHE_TRY(store.demote(sealed.record.file));
    }
    QCACHE_TRY_ASSIGN(auto record, fill_and_seal(store, name, key, plan, open_source));
    if (record) {
      return std::move(*record);
    }
  }
  return fail(ErrorKind::kBusy, "other processes keep replacing " + name.virtual_path() + "; try again");
}

}  // namespace qcache

#include "core/engine/plan_cache.h"

#include <algorithm>

#include "core/layout/safetensors_layout.h"
#include "core/layout/torch_zip.h"

namespace qcache {
namespace {

Result<std::shared_ptr<const LayoutPlan>> make_plan(const ArtifactName& name, const SourceModel& model) {
  switch (name.kind) {
    case ArtifactKind::kSafetensors:
      return plan_safetensors(model, *name.scheme);
    case ArtifactKind::kAdapter: {
      const std::string prefix = factor_prefix(model);
      return plan_safetensors(model, *name.scheme, {.weights = false, .rank = name.rank, .factor_prefix = prefix});
    }
    case ArtifactKind::kCheckpoint:
      break;
  }
  TorchZipOptions options;
  options.rank = name.rank;
  return plan_torch_zip(model, *name.scheme, options);
}

}  // namespace

Result<std::shared_ptr<const LayoutPlan>> PlanCache::plan(const ArtifactName& name, const SourceModel& model,
                                                          const Sha256Digest& recipe) {
  {
    const MutexLock lock(mutex_);
    const auto known = std::find_if(plans_.begin(), plans_.end(), [&](const auto& p) { return p.first == recipe; });
    if (known != plans_.end()) {
      plans_.splice(plans_.begin(), plans_, known);
      return plans_.front().second;
    }
  }
  QCACHE_TRY_ASSIGN(std::shared_ptr<const LayoutPlan> made, make_plan(name, model));
  const MutexLock lock(mutex_);
  if (sizes_.size() >= kMaxSizes) {
    sizes_.clear();  // rare, and cheap to fill again
  }
  sizes_[recipe] = made->size_bytes();
  plans_.emplace_front(recipe, made);
  if (plans_.size() > kMaxPlans) {
    plans_.pop_back();
  }
  return made;
}

Result<std::shared_ptr<const ModelFolder>> PlanCache::folder(const ArtifactName& name, const SourceModel& model,
                                                             const Sha256Digest& recipe, const std::string& base_path) {
  {
    const MutexLock lock(mutex_);
    const auto known = std::find_if(folders_.begin(), folders_.end(), [&](const auto& f) { return f.first == recipe; });
    if (known != folders_.end()) {
      folders_.splice(folders_.begin(), folders_, known);
      return folders_.front().second;
    }
  }
  ArtifactName weights = name;
  weights.kind = ArtifactKind::kSafetensors;
  weights.rank = 0;
  QCACHE_TRY_ASSIGN(const std::shared_ptr<const LayoutPlan> planned_weights,
                    plan(weights, model, recipe_of(weights, model)));
  if (name.rank > 0) {
    QCACHE_TRY(size(name, model, recipe));  // there is no folder of a rank that no weight has
  }
  QCACHE_TRY_ASSIGN(ModelFolder planned,
                    plan_model_folder(model, *name.scheme, *planned_weights, name.rank, base_path));
  auto made = std::make_shared<const ModelFolder>(std::move(planned));
  const MutexLock lock(mutex_);
  folders_.emplace_front(recipe, made);
  if (folders_.size() > kMaxFolders) {
    folders_.pop_back();
  }
  return made;
}

Result<uint64_t> PlanCache::size(const ArtifactName& name, const SourceModel& model, const Sha256Digest& recipe) {
  {
    const MutexLock lock(mutex_);
    const auto known = sizes_.find(recipe);
    if (known != sizes_.end()) {
      return known->second;
    }
  }
  QCACHE_TRY_ASSIGN(const std::shared_ptr<const LayoutPlan> made, plan(name, model, recipe));
  return made->size_bytes();
}

}  // namespace qcache

#include "core/engine/plan_cache.h"

#include <algorithm>

#include "core/layout/torch_zip.h"

namespace qcache {

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
  QCACHE_TRY_ASSIGN(std::shared_ptr<const LayoutPlan> made, plan_torch_zip(model, *name.scheme));
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

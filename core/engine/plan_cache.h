#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>

#include "core/base/mutex.h"
#include "core/engine/artifact_name.h"
#include "core/layout/layout_plan.h"
#include "core/layout/model_folder.h"

namespace qcache {

/// Plans, exact sizes and folders of artifacts, by recipe. Sizes are kept for many (listings need only them), whole
/// plans for the few used last. Thread-safe; planning runs outside the lock.
class PlanCache {
 public:
  /// The plan of `name` for `model`, whose recipe is `recipe`.
  Result<std::shared_ptr<const LayoutPlan>> plan(const ArtifactName& name, const SourceModel& model,
                                                 const Sha256Digest& recipe) QCACHE_EXCLUDES(mutex_);
  /// The folder of the weights, or above rank 0 of the adapter, that `name` is. `base_path` as for
  /// plan_adapter_folder(), and always the same for a name.
  Result<std::shared_ptr<const ModelFolder>> folder(const ArtifactName& name, const SourceModel& model,
                                                    const Sha256Digest& recipe, const std::string& base_path)
      QCACHE_EXCLUDES(mutex_);
  /// Exact size of the file in bytes.
  Result<uint64_t> size(const ArtifactName& name, const SourceModel& model, const Sha256Digest& recipe)
      QCACHE_EXCLUDES(mutex_);

 private:
  static constexpr size_t kMaxPlans = 8;
  static constexpr size_t kMaxFolders = 32;
  static constexpr size_t kMaxSizes = 65'536;
  using Plans = std::list<std::pair<Sha256Digest, std::shared_ptr<const LayoutPlan>>>;

  Mutex mutex_;
  Plans plans_ QCACHE_GUARDED_BY(mutex_);  // most recently used first
  std::list<std::pair<Sha256Digest, std::shared_ptr<const ModelFolder>>> folders_
      QCACHE_GUARDED_BY(mutex_);  // likewise
  std::map<Sha256Digest, uint64_t> sizes_ QCACHE_GUARDED_BY(mutex_);
};

}  // namespace qcache

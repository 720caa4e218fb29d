#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "core/base/mutex.h"
#include "core/engine/artifact_name.h"
#include "core/layout/layout_plan.h"
#include "core/layout/model_folder.h"

namespace qcache {

/// Plans, exact sizes and folders of artifacts, by recipe. Sizes are kept for many (listings need only them), whole
/// plans and folders for those used last, up to so many bytes.
///
/// Always holds: of a model with very many tensors one plan or folder is made at a time, and its plans are not kept
/// beyond their users. So memory follows the largest model, whatever is listed.
/// Thread-safe; planning runs outside the lock.
class PlanCache {
 public:
  /// The plan of `name` for `model`, whose recipe is `recipe`.
  Result<std::shared_ptr<const LayoutPlan>> plan(const ArtifactName& name,
                                                 const std::shared_ptr<const SourceModel>& model,
                                                 const Sha256Digest& recipe) QCACHE_EXCLUDES(mutex_);
  /// What qcache adds to the folder of `rank` of `model`, which is shown as `shown_name`. kNotFound where no weight has
  /// that rank. `base_path` as for plan_adapter_folder(), and always the same for a name, scheme and rank.
  Result<std::shared_ptr<const ModelFolder>> folder(const std::string& shown_name,
                                                    const std::shared_ptr<const SourceModel>& model,
                                                    const Scheme& scheme, uint32_t rank, const std::string& base_path)
      QCACHE_EXCLUDES(mutex_);
  /// Exact size of the file in bytes.
  Result<uint64_t> size(const ArtifactName& name, const std::shared_ptr<const SourceModel>& model,
                        const Sha256Digest& recipe) QCACHE_EXCLUDES(mutex_);

 private:
  static constexpr size_t kMaxPlanBytes = size_t{16} << 20;
  static constexpr size_t kMaxFolderBytes = size_t{8} << 20;
  static constexpr size_t kMaxSizes = 65'536;

  /// What was used last, up to so many bytes; always the very last.
  template <typename T>
  class Recent {
   public:
    std::shared_ptr<const T> find(const Sha256Digest& key);
    void add(const Sha256Digest& key, std::shared_ptr<const T> value, size_t bytes, size_t max_bytes);

   private:
    struct Entry {
      Sha256Digest key{};
      std::shared_ptr<const T> value;
      size_t bytes = 0;
    };
    std::list<Entry> entries_;  // most recently used first
    size_t bytes_ = 0;
  };

  std::shared_ptr<const LayoutPlan> find_plan(const Sha256Digest& recipe) QCACHE_EXCLUDES(mutex_);
  std::shared_ptr<const ModelFolder> find_folder(const Sha256Digest& key) QCACHE_EXCLUDES(mutex_);
  std::optional<Result<uint64_t>> find_size(const Sha256Digest& recipe) QCACHE_EXCLUDES(mutex_);
  void keep_size(const Sha256Digest& recipe, const Result<uint64_t>& size) QCACHE_REQUIRES(mutex_);

  std::mutex large_;  // held while something large is made, with mutex_ under it
  Mutex mutex_;
  Recent<LayoutPlan> plans_ QCACHE_GUARDED_BY(mutex_);
  std::map<Sha256Digest, std::weak_ptr<const LayoutPlan>> large_plans_ QCACHE_GUARDED_BY(mutex_);  // those in use
  Recent<ModelFolder> folders_ QCACHE_GUARDED_BY(mutex_);
  std::map<Sha256Digest, Result<uint64_t>> sizes_ QCACHE_GUARDED_BY(mutex_);
};

}  // namespace qcache

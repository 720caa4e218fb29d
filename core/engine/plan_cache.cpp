#include "core/engine/plan_cache.h"

#include <algorithm>
#include <optional>
#include <span>
#include <vector>

#include <fmt/format.h>

#include "core/base/memory.h"

namespace qcache {
namespace {

bool is_large(const SourceModel& model) {
  return model.tensors.size() > kManyTensors;
}

/// Makes what is large, alone, and hands what it took beyond its result back to the system.
template <typename Make>
auto make_alone(const Make& make) {
  auto made = make();
  return_freed_memory();
  return made;
}

/// About what a plan of a model that is not large takes, with the model and all groups.
size_t bytes_of(const LayoutPlan& plan) {
  constexpr size_t kGroupBytes = 1200;
  return sizeof plan + plan.group_count() * kGroupBytes;
}

/// A folder's texts name the model as the mount does, which recipes do not.
Sha256Digest folder_key(const std::vector<Sha256Digest>& recipes, uint32_t rank, const std::string& model) {
  Sha256 hash;
  for (const Sha256Digest& recipe : recipes) {
    hash.update(std::as_bytes(std::span(recipe)));
  }
  hash.update(fmt::format("{} {}", rank, model));
  return hash.finish();
}

size_t bytes_of(const ModelFolder& folder) {
  size_t bytes = sizeof folder;
  for (const FolderFile& file : folder.files) {
    bytes += sizeof file + file.name.capacity() + file.text.capacity();
  }
  return bytes;
}

}  // namespace

template <typename T>
std::shared_ptr<const T> PlanCache::Recent<T>::find(const Sha256Digest& key) {
  const auto known = std::ranges::find(entries_, key, &Entry::key);
  if (known == entries_.end()) {
    return nullptr;
  }
  entries_.splice(entries_.begin(), entries_, known);
  return known->value;
}

template <typename T>
void PlanCache::Recent<T>::add(const Sha256Digest& key, std::shared_ptr<const T> value, size_t bytes,
                               size_t max_bytes) {
  entries_.push_front(Entry{key, std::move(value), bytes});
  bytes_ += bytes;
  while (bytes_ > max_bytes && entries_.size() > 1) {
    bytes_ -= entries_.back().bytes;
    entries_.pop_back();
  }
}

std::shared_ptr<const LayoutPlan> PlanCache::find_plan(const Sha256Digest& recipe) {
  const MutexLock lock(mutex_);
  if (auto known = plans_.find(recipe)) {
    return known;
  }
  const auto large = large_plans_.find(recipe);
  return large == large_plans_.end() ? nullptr : large->second.lock();
}

std::shared_ptr<const ModelFolder> PlanCache::find_folder(const Sha256Digest& key) {
  const MutexLock lock(mutex_);
  return folders_.find(key);
}

std::optional<Result<uint64_t>> PlanCache::find_size(const Sha256Digest& recipe) {
  const MutexLock lock(mutex_);
  const auto known = sizes_.find(recipe);
  return known == sizes_.end() ? std::nullopt : std::optional(known->second);
}

void PlanCache::keep_size(const Sha256Digest& recipe, const Result<uint64_t>& size) {
  if (sizes_.size() >= kMaxSizes) {
    sizes_.clear();  // rare, and cheap to fill again
  }
  sizes_.insert_or_assign(recipe, size);
}

Result<std::shared_ptr<const LayoutPlan>> PlanCache::plan(const ArtifactName& name,
                                                          const std::shared_ptr<const SourceModel>& model,
                                                          const Sha256Digest& recipe) {
  if (auto known = find_plan(recipe)) {
    return known;
  }
  std::unique_lock<std::mutex> alone;
  const bool large = is_large(*model);
  if (large) {
    alone = std::unique_lock(large_);
    if (auto known = find_plan(recipe)) {
      return known;
    }
  }
  const auto make = [&] { return name.container->plan_of(model, *name.scheme, name.rank); };
  const auto planned = large ? make_alone(make) : make();
  const MutexLock lock(mutex_);
  // Failures too: they follow from the headers as sizes do.
  keep_size(recipe, planned ? Result<uint64_t>((*planned)->size_bytes()) : fail(planned.error()));
  QCACHE_TRY_ASSIGN(std::shared_ptr<const LayoutPlan> made, planned);
  if (large) {
    std::erase_if(large_plans_, [](const auto& plan) { return plan.second.expired(); });
    large_plans_.insert_or_assign(recipe, made);
  } else {
    plans_.add(recipe, made, bytes_of(*made), kMaxPlanBytes);
  }
  return made;
}

Result<std::shared_ptr<const ModelFolder>> PlanCache::folder(const std::string& shown_name,
                                                             const std::shared_ptr<const SourceModel>& model,
                                                             const Scheme& scheme, uint32_t rank,
                                                             const std::string& base_path) {
  std::vector<ArtifactName> shown;  // in the folder
  std::vector<Sha256Digest> recipes;
  for (const Container* const container : all_containers()) {
    if (container->stands_in_folder() && container->has_rank(rank)) {
      shown.push_back({shown_name, &scheme, container->rank_behind(rank), container});
      recipes.push_back(recipe_of(shown.back(), *model));
    }
  }
  const Sha256Digest key = folder_key(recipes, rank, shown_name);
  if (auto known = find_folder(key)) {
    return known;
  }
  for (size_t i = 0; i < shown.size(); ++i) {
    QCACHE_TRY(size(shown[i], model, recipes[i]));  // there is no folder of a rank that no weight has
  }
  std::unique_lock<std::mutex> alone;
  const bool large = is_large(*model);
  if (large) {
    alone = std::unique_lock(large_);
    if (auto known = find_folder(key)) {
      return known;
    }
  }
  const auto make = [&] { return plan_model_folder(*model, scheme, rank, base_path); };
  QCACHE_TRY_ASSIGN(ModelFolder planned, large ? make_alone(make) : make());
  auto made = std::make_shared<const ModelFolder>(std::move(planned));
  const MutexLock lock(mutex_);
  folders_.add(key, made, bytes_of(*made), kMaxFolderBytes);
  return made;
}

Result<uint64_t> PlanCache::size(const ArtifactName& name, const std::shared_ptr<const SourceModel>& model,
                                 const Sha256Digest& recipe) {
  if (const auto known = find_size(recipe)) {
    return *known;
  }
  QCACHE_TRY_ASSIGN(const std::shared_ptr<const LayoutPlan> made, plan(name, model, recipe));
  return made->size_bytes();
}

}  // namespace qcache

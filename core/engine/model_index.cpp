#include "core/engine/model_index.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "core/model/hub_cache.h"

namespace qcache {

ModelIndex::ModelIndex(Env& env, std::vector<std::string> roots) : env_(env), roots_(std::move(roots)) {}

FoundModels ModelIndex::find_all() {
  Places places;
  places.found_at = std::chrono::steady_clock::now();
  FoundModels found = find_models(env_, roots_);
  for (const FoundModel& model : found.models) {
    places.paths.emplace(model.name, model.path);
  }
  const MutexLock lock(mutex_);
  places_ = std::move(places);
  return found;
}

Result<FoundModel> ModelIndex::locate(const std::string& name) {
  constexpr std::chrono::seconds kWalkInterval{1};
  std::optional<FoundModel> known;
  {
    const MutexLock lock(mutex_);
    if (places_ && std::chrono::steady_clock::now() - places_->found_at < kWalkInterval) {
      const auto place = places_->paths.find(name);
      if (place != places_->paths.end()) {
        known = FoundModel{name, place->second};
      }
    }
  }
  if (known && still_there(*known)) {
    return *known;
  }
  const FoundModels all = find_all();
  const auto found =
      std::find_if(all.models.begin(), all.models.end(), [&](const FoundModel& m) { return m.name == name; });
  if (found == all.models.end()) {
    return fail(ErrorKind::kNotFound, "no model '" + name + "' below the mounted folders");
  }
  return *found;
}

bool ModelIndex::still_there(const FoundModel& found) const {
  if (const auto hub = hub_location(found.path)) {
    const auto snapshot = current_snapshot(env_, hub->repo_folder);
    return snapshot && *snapshot && found.path.starts_with(**snapshot);
  }
  return env_.stat(found.path).has_value();
}

Result<std::shared_ptr<const SourceModel>> ModelIndex::get(const std::string& name) {
  QCACHE_TRY_ASSIGN(const FoundModel found, locate(name));
  std::shared_ptr<const SourceModel> known;
  {
    const MutexLock lock(mutex_);
    const auto slot = slots_.find(name);
    if (slot != slots_.end() && slot->second.path == found.path) {
      slot->second.last_use = ++clock_;
      known = slot->second.model;
    }
  }
  // An identity captured too soon after the last change may hide another one: read again until it has settled.
  if (known && known->identity.settled() && check_unchanged(env_, known->identity)) {
    return known;
  }
  QCACHE_TRY_ASSIGN(SourceModel model, read_source_model(env_, found.path, name));
  auto fresh = std::make_shared<const SourceModel>(std::move(model));
  const MutexLock lock(mutex_);
  Slot& slot = slots_[name];
  if (slot.model) {
    tensors_held_ -= slot.model->tensors.size();
  }
  slot = Slot{found.path, fresh, ++clock_};
  tensors_held_ += fresh->tensors.size();
  trim();
  return fresh;
}

Result<std::shared_ptr<const SourceModel>> ModelIndex::get_settled(const std::string& name) {
  // A file that is being written never settles; its reader is told so rather than kept waiting.
  constexpr int kMaxAttempts = 3;
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    QCACHE_TRY_ASSIGN(std::shared_ptr<const SourceModel> model, get(name));
    if (model->identity.settled()) {
      return model;
    }
    constexpr int64_t kLongestWaitNs = 2'100'000'000;
    const int64_t wait_ns = model->identity.settled_at_ns - env_.now_ns();
    std::this_thread::sleep_for(std::chrono::nanoseconds(std::clamp<int64_t>(wait_ns + 1'000'000, 0, kLongestWaitNs)));
  }
  return fail(ErrorKind::kSourceChanged, "the files of model '" + name +
                                             "' are still being written (or carry times in the future): read again "
                                             "when that is done");
}

void ModelIndex::trim() {
  while (tensors_held_ > kMaxTensors && slots_.size() > 1) {
    const auto oldest = std::min_element(slots_.begin(), slots_.end(), [](const auto& a, const auto& b) {
      return a.second.last_use < b.second.last_use;
    });
    tensors_held_ -= oldest->second.model->tensors.size();
    slots_.erase(oldest);
  }
}

}  // namespace qcache

#include "core/engine/model_index.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "core/base/memory.h"
#include "core/base/mount_info.h"
#include "core/model/hub_cache.h"

namespace qcache {
namespace {

/// From here on reading a model takes memory that is worth giving back.
constexpr size_t kLargeBytes = size_t{4} << 20;

/// About what the model takes.
size_t bytes_of(const SourceModel& model) {
  constexpr size_t kOfAllocations = 32;  // what malloc adds for a name and a shape
  size_t bytes = sizeof model + model.config_text.capacity();
  for (const TensorInfo& tensor : model.tensors) {
    bytes += sizeof tensor + tensor.name.capacity() + kOfAllocations +
             (tensor.shape.capacity() + tensor.strides.capacity()) * sizeof(uint64_t);
  }
  return bytes;
}

}  // namespace

ModelIndex::ModelIndex(Env& env, std::vector<std::string> roots)
    : env_(env),
      paths_(std::move(roots)),
      folders_(env, resolve_folders(env, paths_)),
      mounts_(std::make_shared<MountWatch>(env)) {
  for (const std::string& path : paths_) {
    roots_.push_back(std::make_shared<ModelRoot>(env, path, mounts_, folders_));
    if (roots_.back()->may_stop()) {
      roots_.back()->begin_walk();  // while it answers
    }
  }
}

ModelIndex::~ModelIndex() {
  for (const auto& root : roots_) {
    root->stop();
  }
}

FoundModels ModelIndex::find_all() {
  const auto begun = std::chrono::steady_clock::now();
  std::vector<std::shared_ptr<const RootWalk>> walks;
  std::vector<std::string> stopped;
  for (const auto& root : roots_) {
    const ModelRoot::Seen seen = root->walk();
    if (!seen.answered) {
      stopped.push_back(fmt::format("the model folder {} does not answer: its models are listed as they were last seen",
                                    root->path()));
    }
    if (seen.walk) {
      walks.push_back(seen.walk);
    }
  }
  if (stopped.empty()) {
    remember_walks(walks, begun);
  }
  FoundModels found = join_walks(walks);
  std::move(stopped.begin(), stopped.end(), std::back_inserter(found.problems));
  return found;
}

void ModelIndex::remember_walks(const std::vector<std::shared_ptr<const RootWalk>>& walks,
                                std::chrono::steady_clock::time_point begun) {
  const MutexLock lock(mutex_);
  for (size_t i = 0; i < walks.size() && !roots_[i]->may_stop(); ++i) {
    for (const FoundModel& found : walks[i]->models) {
      if (places_.size() >= kMaxPlaces) {
        return;
      }
      Place& place = places_[found.name];
      if (place.found_at + kLookInterval <= begun) {  // else it is known, or in a root before this one
        place = Place{found.path, roots_[i], false, false, true, begun};
      }
    }
  }
}

std::optional<ModelIndex::Place> ModelIndex::recent_place(const std::string& name) {
  const MutexLock lock(mutex_);
  const auto place = places_.find(name);
  if (place == places_.end() || std::chrono::steady_clock::now() - place->second.found_at >= kLookInterval) {
    return std::nullopt;
  }
  return place->second;
}

Result<FoundModel> ModelIndex::locate(const std::string& name) {
  if (const std::optional<Place> place = recent_place(name)) {
    const FoundModel known{name, place->path};
    if (place->unresolved) {
      auto there = remember(known, place->root);
      return there ? there : look_up(name);
    }
    if (place->may_stop || (place->direct && env_.stat(known.path))) {
      return known;  // of one that may stop, whoever wants more of it sees what has become of it
    }
    if (!place->direct) {
      if (auto there = resolved(known)) {
        return *std::move(there);
      }
    }
  }
  return look_up(name);
}

Result<FoundModel> ModelIndex::locate_folder(const std::string& name) {
  QCACHE_TRY_ASSIGN(FoundModel found, locate(name));
  return !root_that_may_stop(name) ? found : resolved(std::move(found));
}

Result<FoundModel> ModelIndex::look_up(const std::string& name) {
  std::vector<std::shared_ptr<ModelRoot>> unsure;  // only a walk could tell
  std::vector<std::shared_ptr<ModelRoot>> stopped;
  for (const auto& root : roots_) {
    ModelRoot::Answer answer = root->look_up(name);
    if (answer.lookup.found) {
      return remember(*answer.lookup.found, root);
    }
    if (!answer.answered) {
      stopped.push_back(root);
    } else if (!answer.lookup.sure) {
      if (answer.walked) {
        const ModelRoot::Seen seen = root->walk();  // looks at what has changed only
        const auto path = seen.walk->paths.find(name);
        if (path != seen.walk->paths.end()) {
          return remember({name, path->second}, root);
        }
      } else {
        unsure.push_back(root);
      }
    }
  }
  for (const auto& root : unsure) {
    const ModelRoot::Seen seen = root->walk();
    const auto path =
        seen.walk ? seen.walk->paths.find(name) : std::unordered_map<std::string, std::string>::const_iterator();
    if (seen.walk && path != seen.walk->paths.end()) {
      return remember({name, path->second}, root);
    }
  }
  for (const auto& root : stopped) {
    if (root->wait_until_it_goes_on()) {
      const ModelRoot::Answer answer = root->look_up(name);
      if (answer.lookup.found) {
        return remember(*answer.lookup.found, root);
      }
    }
  }
  {
    const MutexLock lock(mutex_);
    places_.erase(name);
  }
  std::string message = "no model '" + name + "' below the mounted folders";
  if (!stopped.empty()) {
    message += fmt::format(" ({} does not answer)", stopped.front()->path());
  }
  return fail(ErrorKind::kNotFound, std::move(message));
}

Result<FoundModel> ModelIndex::remember(const FoundModel& found, const std::shared_ptr<ModelRoot>& root) {
  const bool may_stop = root->may_stop();
  FoundModel real = found;
  if (!may_stop) {
    QCACHE_TRY_ASSIGN(real, resolved(found));
  }
  const MutexLock lock(mutex_);
  if (places_.size() >= kMaxPlaces) {
    places_.clear();  // rare, and cheap to fill again
  }
  const bool direct = !may_stop && real.path == found.path && !hub_location(found.path);
  places_[found.name] = Place{found.path, root, may_stop, direct, false, std::chrono::steady_clock::now()};
  return real;
}

std::vector<std::string> ModelIndex::stopped_roots() const {
  std::vector<std::string> out;
  for (const auto& root : roots_) {
    if (const auto seconds = root->stopped_for()) {
      out.push_back(
          fmt::format("the model folder {} has not answered for {} s: its models are shown as they were last "
                      "seen, and reading them waits",
                      root->path(), seconds->count()));
    }
  }
  return out;
}

std::optional<size_t> ModelIndex::root_that_may_stop(const std::string& name) {
  const MutexLock lock(mutex_);
  const auto place = places_.find(name);
  if (place == places_.end() || !place->second.may_stop) {
    return std::nullopt;
  }
  return static_cast<size_t>(std::ranges::find(roots_, place->second.root) - roots_.begin());
}

Result<FoundModel> ModelIndex::resolved(FoundModel found) const {
  if (const auto hub = hub_location(found.path)) {
    QCACHE_TRY_ASSIGN(const auto snapshot, current_snapshot(env_, hub->repo_folder));
    if (!snapshot || !found.path.starts_with(*snapshot)) {
      return fail(ErrorKind::kNotFound, found.path + " is no longer the current snapshot");
    }
    return found;
  }
  QCACHE_TRY_ASSIGN(found.path, env_.real_path(found.path));
  return found;
}

Result<std::shared_ptr<const SourceModel>> ModelIndex::get(const std::string& name) {
  // Where its files are unchanged its folder is there, and need not be asked for.
  if (const std::optional<Place> place = recent_place(name); place && place->direct) {
    if (auto known = unchanged(FoundModel{name, place->path})) {
      return known;
    }
  }
  QCACHE_TRY_ASSIGN(const FoundModel found, locate_folder(name));
  if (auto known = unchanged(found)) {
    return known;
  }
  const std::shared_ptr<std::mutex> turn = turn_of(name);
  const std::unique_lock<std::mutex> reading(*turn);
  if (auto known = unchanged(found)) {
    return known;
  }
  std::optional<SourceIdentity> before;
  {
    const MutexLock lock(mutex_);
    const auto slot = slots_.find(name);
    if (slot != slots_.end() && slot->second.path == found.path) {
      before = slot->second.model->identity;
    }
    forget(name);  // its new state is not held beside the old one
  }
  QCACHE_TRY_ASSIGN(SourceModel model, read_source_model(env_, folders_, found.path, name));
  if (before) {
    model.identity.go_on_from(*before);
  }
  const size_t bytes = bytes_of(model);
  auto fresh = std::make_shared<const SourceModel>(std::move(model));
  if (bytes > kLargeBytes) {
    return_freed_memory();  // the header's text
  }
  const MutexLock lock(mutex_);
  forget(name);
  slots_[name] = Slot{found.path, fresh, ++clock_, bytes};
  bytes_held_ += bytes;
  trim();
  return fresh;
}

std::shared_ptr<const SourceModel> ModelIndex::unchanged(const FoundModel& found) {
  std::shared_ptr<const SourceModel> known;
  {
    const MutexLock lock(mutex_);
    const auto slot = slots_.find(found.name);
    if (slot != slots_.end() && slot->second.path == found.path) {
      slot->second.last_use = ++clock_;
      known = slot->second.model;
    }
  }
  // An identity captured too soon after the last change may hide another one: read again until it has settled.
  return known && known->identity.settled() && check_unchanged(env_, known->identity) ? known : nullptr;
}

std::shared_ptr<std::mutex> ModelIndex::turn_of(const std::string& name) {
  const MutexLock lock(mutex_);
  std::erase_if(turns_, [](const auto& turn) { return turn.second.expired(); });
  std::weak_ptr<std::mutex>& slot = turns_[name];
  std::shared_ptr<std::mutex> turn = slot.lock();
  if (!turn) {
    turn = std::make_shared<std::mutex>();
    slot = turn;
  }
  return turn;
}

Result<std::shared_ptr<const SourceModel>> ModelIndex::get_settled(const std::string& name, int64_t& settles_in_ns) {
  constexpr int64_t kMargin = 1'000'000;
  QCACHE_TRY_ASSIGN(std::shared_ptr<const SourceModel> model, get(name));
  if (model->identity.settled()) {
    settles_in_ns = 0;
    return model;
  }
  // Never 0, which means something else: it may have settled since it was captured.
  settles_in_ns = model->identity.settles_in_ns(env_) + kMargin;
  return fail(ErrorKind::kBusy, "the files of model '" + name + "' were written just now");
}

void ModelIndex::forget(const std::string& name) {
  const auto slot = slots_.find(name);
  if (slot != slots_.end()) {
    bytes_held_ -= slot->second.bytes;
    slots_.erase(slot);
  }
}

void ModelIndex::trim() {
  for (;;) {
    // The largest takes the longest to read again.
    const auto largest = std::max_element(slots_.begin(), slots_.end(),
                                          [](const auto& a, const auto& b) { return a.second.bytes < b.second.bytes; });
    if (largest == slots_.end() || bytes_held_ - largest->second.bytes <= kMaxBytes) {
      return;
    }
    const std::string* oldest = nullptr;
    uint64_t last_use = 0;
    for (const auto& [name, slot] : slots_) {
      if (&slot != &largest->second && (oldest == nullptr || slot.last_use < last_use)) {
        oldest = &name;
        last_use = slot.last_use;
      }
    }
    forget(std::string(*oldest));
  }
}

}  // namespace qcache

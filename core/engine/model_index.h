#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/base/env.h"
#include "core/base/mutex.h"
#include "core/engine/model_root.h"
#include "core/model/model_finder.h"
#include "core/model/source_folders.h"
#include "core/model/source_model.h"

namespace qcache {

/// The models below the roots, each read when first asked for and again whenever its files change.
///
/// What get() returns is current at the moment of the call: every call looks at the files' stats. Thread-safe; a model
/// whose header is being read does not hold up calls for others, and is read once however many ask for it; a root whose
/// filesystem has stopped does not hold up names of other roots (see ModelRoot). Memory is bounded by bytes: models not
/// asked for lately are read again, except the largest.
class ModelIndex {
 public:
  ModelIndex(Env& env, std::vector<std::string> roots);
  ~ModelIndex();
  ModelIndex(const ModelIndex&) = delete;
  ModelIndex& operator=(const ModelIndex&) = delete;

  /// Walks through the roots anew (those that take long: at most once a second).
  [[nodiscard]] FoundModels find_all() QCACHE_EXCLUDES(mutex_);

  /// The folder of the model called `name`. Where it lies is looked up at most once a second, in the few folders that
  /// the name may lead to; that it is still there, and which snapshot of a hub cache is current, at every call.
  [[nodiscard]] Result<FoundModel> locate(const std::string& name) QCACHE_EXCLUDES(mutex_);

  /// The same with the links in its path followed, so that all names of a folder lead to one path. Of a folder that may
  /// stop, locate() follows none, as that could hang.
  [[nodiscard]] Result<FoundModel> locate_folder(const std::string& name) QCACHE_EXCLUDES(mutex_);

  /// kNotFound where no folder has this name; kInvalidModel, kPermission and others where it is there but cannot be
  /// served. The identity may not be settled yet: listings may use the model, bytes may not.
  Result<std::shared_ptr<const SourceModel>> get(const std::string& name) QCACHE_EXCLUDES(mutex_);

  /// The same for those who want bytes. An identity that has not settled is kBusy, and says in `settles_in_ns` when to
  /// ask again (20 ms on most filesystems, at most 2 s); kSourceChanged where the files go on changing.
  Result<std::shared_ptr<const SourceModel>> get_settled(const std::string& name, int64_t& settles_in_ns)
      QCACHE_EXCLUDES(mutex_);

  /// One sentence for each root whose filesystem does not answer.
  [[nodiscard]] std::vector<std::string> stopped_roots() const;
  /// The number of the root that the model was last seen below, where that may stop answering. Touches no file.
  [[nodiscard]] std::optional<size_t> root_that_may_stop(const std::string& name) QCACHE_EXCLUDES(mutex_);

  [[nodiscard]] const std::vector<std::string>& roots() const { return paths_; }
  /// What may be read: the roots, where they led when this was made.
  [[nodiscard]] const SourceFolders& folders() const { return folders_; }
  /// What is mounted where, now.
  [[nodiscard]] std::shared_ptr<const MountTable> mounts() const { return mounts_->now(); }

 private:
  struct Slot {
    std::string path;
    std::shared_ptr<const SourceModel> model;
    uint64_t last_use = 0;
    size_t bytes = 0;
  };
  static constexpr size_t kMaxBytes = size_t{32} << 20;  // over all models held but the largest

  struct Place {
    std::string path;
    std::shared_ptr<ModelRoot> root;
    bool may_stop = false;
    bool direct = false;      ///< no link on the way, nor a choice of snapshots: its path is the folder's
    bool unresolved = false;  ///< from a walk, which follows no links
    std::chrono::steady_clock::time_point found_at;
  };
  static constexpr size_t kMaxPlaces = 20'000;
  static constexpr std::chrono::seconds kLookInterval{1};

  /// The model as it was read, where it has not changed since and its identity is settled; else null.
  std::shared_ptr<const SourceModel> unchanged(const FoundModel& found) QCACHE_EXCLUDES(mutex_);
  /// Held by who reads the model called `name`.
  std::shared_ptr<std::mutex> turn_of(const std::string& name) QCACHE_EXCLUDES(mutex_);
  void forget(const std::string& name) QCACHE_REQUIRES(mutex_);
  void trim() QCACHE_REQUIRES(mutex_);
  /// Where the model was found within the last second.
  [[nodiscard]] std::optional<Place> recent_place(const std::string& name) QCACHE_EXCLUDES(mutex_);
  [[nodiscard]] Result<FoundModel> look_up(const std::string& name) QCACHE_EXCLUDES(mutex_);
  [[nodiscard]] Result<FoundModel> remember(const FoundModel& found, const std::shared_ptr<ModelRoot>& root)
      QCACHE_EXCLUDES(mutex_);
  /// So that whoever listed the models and asks for each needs no look-up. `walks`: by root, as long as those answered.
  void remember_walks(const std::vector<std::shared_ptr<const RootWalk>>& walks,
                      std::chrono::steady_clock::time_point begun) QCACHE_EXCLUDES(mutex_);
  /// With the links in its path followed, so that all names of a folder lead to one path; an error where it is no
  /// longer there, or another snapshot of its hub cache is current.
  [[nodiscard]] Result<FoundModel> resolved(FoundModel found) const;

  Env& env_;
  const std::vector<std::string> paths_;
  const SourceFolders folders_;
  const std::shared_ptr<MountWatch> mounts_;
  std::vector<std::shared_ptr<ModelRoot>> roots_;  // constant after construction
  Mutex mutex_;
  uint64_t clock_ QCACHE_GUARDED_BY(mutex_) = 0;
  size_t bytes_held_ QCACHE_GUARDED_BY(mutex_) = 0;
  std::unordered_map<std::string, std::weak_ptr<std::mutex>> turns_ QCACHE_GUARDED_BY(mutex_);
  std::unordered_map<std::string, Slot> slots_ QCACHE_GUARDED_BY(mutex_);
  std::unordered_map<std::string, Place> places_ QCACHE_GUARDED_BY(mutex_);
};

}  // namespace qcache

#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/base/env.h"
#include "core/base/mutex.h"
#include "core/model/model_finder.h"
#include "core/model/source_model.h"

namespace qcache {

/// The models below the roots, each read when first asked for and again whenever its files change.
///
/// What get() returns is current at the moment of the call: every call looks at the files' stats. Thread-safe; a model
/// whose header is being read does not hold up calls for others. Memory is bounded: models not asked for lately are
/// read again.
class ModelIndex {
 public:
  ModelIndex(Env& env, std::vector<std::string> roots);

  /// Lists the directories anew.
  [[nodiscard]] FoundModels find_all() QCACHE_EXCLUDES(mutex_);

  /// The folder of the model called `name`. Where it lies is looked up at most once a second (a walk over all folders);
  /// that it is still there, and which snapshot of a hub cache is current, at every call.
  [[nodiscard]] Result<FoundModel> locate(const std::string& name) QCACHE_EXCLUDES(mutex_);

  /// kNotFound where no folder has this name; kInvalidModel, kPermission and others where it is there but cannot be
  /// served. The identity may not be settled yet: listings may use the model, bytes may not.
  Result<std::shared_ptr<const SourceModel>> get(const std::string& name) QCACHE_EXCLUDES(mutex_);

  /// The same, with a settled identity: waits (20 ms on most filesystems, at most 2 s) where a file is younger than its
  /// clock's granularity.
  Result<std::shared_ptr<const SourceModel>> get_settled(const std::string& name) QCACHE_EXCLUDES(mutex_);

  [[nodiscard]] const std::vector<std::string>& roots() const { return roots_; }

 private:
  struct Slot {
    std::string path;
    std::shared_ptr<const SourceModel> model;
    uint64_t last_use = 0;
  };
  static constexpr size_t kMaxTensors = 1'000'000;  // over all models held; about 150 bytes each

  struct Places {
    std::unordered_map<std::string, std::string> paths;  // by name
    std::chrono::steady_clock::time_point found_at;
  };

  void trim() QCACHE_REQUIRES(mutex_);
  [[nodiscard]] bool still_there(const FoundModel& found) const;

  Env& env_;
  const std::vector<std::string> roots_;
  Mutex mutex_;
  uint64_t clock_ QCACHE_GUARDED_BY(mutex_) = 0;
  size_t tensors_held_ QCACHE_GUARDED_BY(mutex_) = 0;
  std::unordered_map<std::string, Slot> slots_ QCACHE_GUARDED_BY(mutex_);
  std::optional<Places> places_ QCACHE_GUARDED_BY(mutex_);
};

}  // namespace qcache

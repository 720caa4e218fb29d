#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/env.h"
#include "core/base/mutex.h"
#include "core/engine/artifact_name.h"
#include "core/store/store.h"

namespace qcache {

/// Which files of ranks above 0 hold bytes in a cache directory: mounts list these only. What was found holds for a
/// second, as listing every dtype of every model must not read the whole catalog each time; what this process makes or
/// drops is to be told by changed(). Thread-safe.
class CachedRanks {
 public:
  struct File {
    ArtifactPath path;  ///< may name the model as another mount does
    std::string base;   ///< tells the folder of the model
  };

  CachedRanks(Env& env, Store& store) : env_(env), store_(store) {}

  /// Nothing where the cache directory cannot be read.
  [[nodiscard]] std::vector<File> all() QCACHE_EXCLUDES(mutex_);
  /// A file of a rank above 0 was begun, sealed or dropped.
  void changed() QCACHE_EXCLUDES(mutex_);

 private:
  Env& env_;
  Store& store_;
  Mutex mutex_;
  std::vector<File> found_ QCACHE_GUARDED_BY(mutex_);
  int64_t holds_until_ns_ QCACHE_GUARDED_BY(mutex_) = 0;
  uint64_t changes_ QCACHE_GUARDED_BY(mutex_) = 0;
};

}  // namespace qcache

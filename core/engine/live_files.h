#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/base/mutex.h"
#include "core/engine/filling_artifact.h"

namespace qcache {

/// The files that one process is making, each by the name that it goes by (base_file_name()); of several recipes the
/// latest. A file stays for a while after its last reader left: opening it again then costs no hashing.
///
/// Thread-safe. Whatever a function returns may be the last reference, whose end closes a file that may be large and
/// removed: seconds, so a worker is to do it.
class LiveFiles {
 public:
  using File = std::shared_ptr<FillingArtifact>;
  using Test = std::function<bool(const FillingArtifact&)>;

  /// Null where there is none.
  [[nodiscard]] File find(const std::string& base) const QCACHE_EXCLUDES(mutex_);
  [[nodiscard]] std::vector<File> all() const QCACHE_EXCLUDES(mutex_);

  /// The file that is known by the name, where it is `usable`, else `fresh`, which then has the name; `replaced` gets
  /// what had it. kInterrupted after stop().
  Result<File> keep(const std::string& base, const File& fresh, const Test& usable, File& replaced)
      QCACHE_EXCLUDES(mutex_);
  /// Nobody is to find the file any more; those who have it keep it.
  void forget(const File& file) QCACHE_EXCLUDES(mutex_);
  /// The same for whatever is known by the name.
  [[nodiscard]] File take(const std::string& base) QCACHE_EXCLUDES(mutex_);
  /// The same for all that pass the test.
  [[nodiscard]] std::vector<File> take_if(const Test& test) QCACHE_EXCLUDES(mutex_);

  /// From now on no file is kept. All that somebody still has, whether they can be found or not.
  [[nodiscard]] std::vector<File> stop() QCACHE_EXCLUDES(mutex_);

 private:
  // Its readers keep it, and stop() finds it.
  void retire(const File& file) QCACHE_REQUIRES(mutex_);

  mutable Mutex mutex_;  // taken before a FillingArtifact's
  bool stopped_ QCACHE_GUARDED_BY(mutex_) = false;
  std::unordered_map<std::string, File> files_ QCACHE_GUARDED_BY(mutex_);
  std::vector<std::weak_ptr<FillingArtifact>> retired_ QCACHE_GUARDED_BY(mutex_);
};

}  // namespace qcache

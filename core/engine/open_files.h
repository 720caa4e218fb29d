#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/base/mutex.h"
#include "core/store/catalog.h"

namespace qcache {

/// Which cached files the readers of this process have open, and what is to be written into their records about it.
///
/// A file is used for as long as it is open, whether it is read or not: the kernel tells nobody of reads of a file that
/// was handed to it. So the time of its last use is noted when it is opened, when its last reader closes it, and in
/// between whenever renew() is called. Thread-safe; calls return at once.
class OpenFiles {
 public:
  /// `hit`: a complete file was opened.
  void opened(const std::string& file, int64_t now_ns, bool hit) QCACHE_EXCLUDES(mutex_);
  /// `lease` keeps the file from being dropped for its age, and is kept until the last use is written. Returns whether
  /// that is to be soon: not where the opening has told nearly the same.
  bool closed(const std::string& file, int64_t now_ns, std::shared_ptr<const void> lease) QCACHE_EXCLUDES(mutex_);
  /// Notes that all open files are used now.
  void renew(int64_t now_ns) QCACHE_EXCLUDES(mutex_);
  /// From now on nothing is noted and no lease is kept.
  void stop() QCACHE_EXCLUDES(mutex_);

  struct Uses {
    std::vector<AccessUpdate> updates;
    std::vector<std::shared_ptr<const void>> leases;  ///< to be kept until the updates are written
  };
  /// Whether closed() has asked for it.
  [[nodiscard]] bool urgent() const QCACHE_EXCLUDES(mutex_);
  /// What was noted since the last call.
  Uses take() QCACHE_EXCLUDES(mutex_);

 private:
  struct OpenFile {
    uint32_t readers = 0;
    int64_t noted_ns = 0;
  };
  AccessUpdate& note(const std::string& file, int64_t now_ns) QCACHE_REQUIRES(mutex_);

  mutable Mutex mutex_;
  bool stopped_ QCACHE_GUARDED_BY(mutex_) = false;
  std::unordered_map<std::string, OpenFile> open_ QCACHE_GUARDED_BY(mutex_);
  std::unordered_map<std::string, AccessUpdate> noted_ QCACHE_GUARDED_BY(mutex_);
  std::unordered_map<std::string, std::shared_ptr<const void>> leases_ QCACHE_GUARDED_BY(mutex_);
};

}  // namespace qcache

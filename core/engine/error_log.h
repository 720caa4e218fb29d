#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "core/base/mutex.h"
#include "core/base/result.h"

namespace qcache {

/// One failure a user may want to know of.
struct ErrorEntry {
  int64_t first_ns = 0;
  int64_t last_ns = 0;
  uint64_t count = 0;
  std::string subject;  ///< a model, or "<model>/<dtype>/<rank>.bin"
  Error error;
};

/// The most recent failures, newest first, equal ones counted instead of repeated. Thread-safe; never fails; holds a
/// bounded number. Every new one is also logged once, at warning level.
class ErrorLog {
 public:
  void add(const std::string& subject, const Error& error, int64_t now_ns) QCACHE_EXCLUDES(mutex_);
  [[nodiscard]] std::vector<ErrorEntry> recent() const QCACHE_EXCLUDES(mutex_);

 private:
  static constexpr size_t kMaxEntries = 64;
  mutable Mutex mutex_;
  std::deque<ErrorEntry> entries_ QCACHE_GUARDED_BY(mutex_);
};

}  // namespace qcache

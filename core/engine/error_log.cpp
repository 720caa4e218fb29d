#include "core/engine/error_log.h"

#include <algorithm>

#include "core/base/log.h"

namespace qcache {

void ErrorLog::add(const std::string& subject, const Error& error, int64_t now_ns) {
  {
    const MutexLock lock(mutex_);
    const auto known = std::find_if(entries_.begin(), entries_.end(), [&](const ErrorEntry& entry) {
      return entry.subject == subject && entry.error.message == error.message;
    });
    if (known != entries_.end()) {
      ErrorEntry entry = std::move(*known);
      entries_.erase(known);
      entry.last_ns = now_ns;
      ++entry.count;
      entries_.push_front(std::move(entry));
      return;
    }
    entries_.push_front(ErrorEntry{now_ns, now_ns, 1, subject, error});
    if (entries_.size() > kMaxEntries) {
      entries_.pop_back();
    }
  }
  spdlog::warn("{}: {}", subject, error.message);
}

std::vector<ErrorEntry> ErrorLog::recent() const {
  const MutexLock lock(mutex_);
  return {entries_.begin(), entries_.end()};
}

}  // namespace qcache

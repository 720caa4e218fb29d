#include "fs/handle.h"

#include <algorithm>

namespace qcache {

uint64_t HandleTable::add(Handle handle) {
  auto shared = std::make_shared<const Handle>(std::move(handle));
  const MutexLock lock(mutex_);
  handles_[next_] = std::move(shared);
  return next_++;
}

std::shared_ptr<const Handle> HandleTable::find(uint64_t id) const {
  const MutexLock lock(mutex_);
  const auto found = handles_.find(id);
  return found == handles_.end() ? nullptr : found->second;
}

size_t HandleTable::served_here() const {
  const MutexLock lock(mutex_);
  return static_cast<size_t>(
      std::count_if(handles_.begin(), handles_.end(), [](const auto& entry) { return entry.second->served_here; }));
}

std::shared_ptr<const Handle> HandleTable::take(uint64_t id) {
  const MutexLock lock(mutex_);
  const auto found = handles_.find(id);
  if (found == handles_.end()) {
    return nullptr;
  }
  std::shared_ptr<const Handle> handle = std::move(found->second);
  handles_.erase(found);
  return handle;
}

}  // namespace qcache

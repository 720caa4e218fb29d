#include "core/engine/open_files.h"

#include <utility>

namespace qcache {
namespace {

// The precision of what is written: a file that was open for less needs no second note.
constexpr int64_t kPrecisionNs = 1'000'000'000;

}  // namespace

AccessUpdate& OpenFiles::note(const std::string& file, int64_t now_ns) {
  AccessUpdate& update = noted_[file];
  update.file = file;
  update.accessed_ns = now_ns;
  return update;
}

void OpenFiles::opened(const std::string& file, int64_t now_ns, bool hit) {
  const MutexLock lock(mutex_);
  note(file, now_ns).hits += hit ? 1 : 0;
  OpenFile& open = open_[file];
  open.noted_ns = now_ns;
  ++open.readers;
}

bool OpenFiles::closed(const std::string& file, int64_t now_ns, std::shared_ptr<const void> lease) {
  std::shared_ptr<const void> replaced;  // dropped without the lock, as is `lease`
  const MutexLock lock(mutex_);
  const auto open = open_.find(file);
  if (open == open_.end() || --open->second.readers > 0) {
    return false;
  }
  const bool long_ago = now_ns - open->second.noted_ns >= kPrecisionNs;
  open_.erase(open);
  if (!long_ago || stopped_) {
    return false;
  }
  note(file, now_ns);
  replaced = std::exchange(leases_[file], std::move(lease));
  return true;
}

void OpenFiles::renew(int64_t now_ns) {
  const MutexLock lock(mutex_);
  for (auto& [file, open] : open_) {
    note(file, now_ns);
    open.noted_ns = now_ns;
  }
}

void OpenFiles::stop() {
  const MutexLock lock(mutex_);
  stopped_ = true;
}

bool OpenFiles::urgent() const {
  const MutexLock lock(mutex_);
  return !leases_.empty();
}

OpenFiles::Uses OpenFiles::take() {
  Uses uses;
  const MutexLock lock(mutex_);
  uses.updates.reserve(noted_.size());
  uses.leases.reserve(leases_.size());
  for (auto& [file, update] : noted_) {
    uses.updates.push_back(std::move(update));
  }
  for (auto& [file, lease] : leases_) {
    uses.leases.push_back(std::move(lease));
  }
  noted_.clear();
  leases_.clear();
  return uses;
}

}  // namespace qcache

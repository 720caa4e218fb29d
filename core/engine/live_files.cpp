#include "core/engine/live_files.h"

#include <utility>

namespace qcache {

LiveFiles::File LiveFiles::find(const std::string& base) const {
  const MutexLock lock(mutex_);
  const auto found = files_.find(base);
  return found == files_.end() ? nullptr : found->second;
}

std::vector<LiveFiles::File> LiveFiles::all() const {
  std::vector<File> out;
  const MutexLock lock(mutex_);
  out.reserve(files_.size());
  for (const auto& [base, file] : files_) {
    out.push_back(file);
  }
  return out;
}

Result<LiveFiles::File> LiveFiles::keep(const std::string& base, const File& fresh, const Test& usable,
                                        File& replaced) {
  const MutexLock lock(mutex_);
  if (stopped_) {
    return fail(ErrorKind::kInterrupted, "the filesystem is being unmounted");
  }
  File& slot = files_[base];
  if (slot == nullptr || !usable(*slot)) {
    replaced = std::exchange(slot, fresh);
    retire(replaced);
  }
  return slot;
}

void LiveFiles::forget(const File& file) {
  const MutexLock lock(mutex_);
  const auto found = files_.find(base_file_name(file->filling().key().file));
  if (found != files_.end() && found->second == file) {
    retire(file);
    files_.erase(found);  // not the last reference: the caller has one
  }
}

LiveFiles::File LiveFiles::take(const std::string& base) {
  const MutexLock lock(mutex_);
  const auto found = files_.find(base);
  if (found == files_.end()) {
    return nullptr;
  }
  File file = std::move(found->second);
  files_.erase(found);
  retire(file);
  return file;
}

std::vector<LiveFiles::File> LiveFiles::take_if(const Test& test) {
  std::vector<File> out;
  const MutexLock lock(mutex_);
  for (auto it = files_.begin(); it != files_.end();) {
    if (test(*it->second)) {
      out.push_back(std::move(it->second));
      retire(out.back());
      it = files_.erase(it);
    } else {
      ++it;
    }
  }
  return out;
}

std::vector<LiveFiles::File> LiveFiles::stop() {
  std::vector<File> out;
  const MutexLock lock(mutex_);
  stopped_ = true;
  for (const auto& [base, file] : files_) {
    out.push_back(file);
  }
  for (const auto& retired : retired_) {
    if (File file = retired.lock()) {
      out.push_back(std::move(file));
    }
  }
  return out;
}

void LiveFiles::retire(const File& file) {
  if (file) {
    std::erase_if(retired_, [](const auto& retired) { return retired.expired(); });
    retired_.push_back(file);
  }
}

}  // namespace qcache

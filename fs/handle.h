#pragma once

#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "core/base/mutex.h"
#include "fs/node.h"
#include "fs/passthrough.h"

namespace qcache {

/// What an open file or folder of the kernel stands for. Immutable.
struct Handle {
  std::optional<OpenFile> file;           ///< none of a folder
  std::optional<Passthrough::Hold> hold;  ///< of a file that was offered to the kernel
  /// Its reads come to this process, and fail when it ends.
  bool served_here = false;
  std::vector<FolderEntry> entries;  ///< a folder, as it was when opened
};

/// The open handles, by the number the kernel holds. They end with the table, so that a mount that is taken down with
/// files open leaves nothing behind. Thread-safe.
class HandleTable {
 public:
  uint64_t add(Handle handle) QCACHE_EXCLUDES(mutex_);
  /// Null for a number that is not open: EBADF, never a second guess.
  [[nodiscard]] std::shared_ptr<const Handle> find(uint64_t id) const QCACHE_EXCLUDES(mutex_);
  /// How many there are with `served_here`.
  [[nodiscard]] size_t served_here() const QCACHE_EXCLUDES(mutex_);
  /// The handle, no longer in the table.
  std::shared_ptr<const Handle> take(uint64_t id) QCACHE_EXCLUDES(mutex_);

 private:
  mutable Mutex mutex_;
  uint64_t next_ QCACHE_GUARDED_BY(mutex_) = 1;
  std::unordered_map<uint64_t, std::shared_ptr<const Handle>> handles_ QCACHE_GUARDED_BY(mutex_);
};

}  // namespace qcache

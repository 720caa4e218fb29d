#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <unordered_map>

#include "core/base/mutex.h"
#include "fs/node.h"

namespace qcache {

/// The nodes the kernel knows, by the number (nodeid) it knows them under. Number 1 is the root. Numbers are never used
/// twice. Thread-safe.
class NodeTable {
 public:
  static constexpr uint64_t kRootId = 1;
  explicit NodeTable(std::shared_ptr<const Node> root);

  /// The number of the node with this key, made if new; counts one lookup, which the kernel gives back with forget().
  uint64_t remember(std::shared_ptr<const Node> node) QCACHE_EXCLUDES(mutex_);
  /// Null for a number the kernel has given back: a bug of ours or of the kernel.
  [[nodiscard]] std::shared_ptr<const Node> find(uint64_t id) const QCACHE_EXCLUDES(mutex_);
  void forget(uint64_t id, uint64_t lookups) QCACHE_EXCLUDES(mutex_);
  /// Lets the next lookup of this key make a new number: the kernel has marked this one's inode as deleted.
  void retire(std::string_view key) QCACHE_EXCLUDES(mutex_);
  [[nodiscard]] size_t size() const QCACHE_EXCLUDES(mutex_);

 private:
  struct Entry {
    std::shared_ptr<const Node> node;
    uint64_t lookups = 0;
  };
  mutable Mutex mutex_;
  uint64_t next_id_ QCACHE_GUARDED_BY(mutex_) = kRootId + 1;
  std::unordered_map<uint64_t, Entry> entries_ QCACHE_GUARDED_BY(mutex_);
  std::unordered_map<std::string_view, uint64_t> ids_ QCACHE_GUARDED_BY(mutex_);  // by the keys of those nodes
};

}  // namespace qcache

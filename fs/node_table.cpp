#include "fs/node_table.h"

#include <algorithm>
#include <utility>

namespace qcache {

NodeTable::NodeTable(std::shared_ptr<const Node> root) {
  entries_[kRootId] = Entry{std::move(root), 1};
}

uint64_t NodeTable::remember(std::shared_ptr<const Node> node) {
  const MutexLock lock(mutex_);
  const auto known = ids_.find(node->key());
  if (known != ids_.end()) {
    ++entries_.at(known->second).lookups;
    return known->second;
  }
  const uint64_t id = next_id_++;
  const std::string_view key = node->key();
  entries_[id] = Entry{std::move(node), 1};
  ids_[key] = id;
  return id;
}

std::shared_ptr<const Node> NodeTable::find(uint64_t id) const {
  const MutexLock lock(mutex_);
  const auto entry = entries_.find(id);
  return entry == entries_.end() ? nullptr : entry->second.node;
}

void NodeTable::forget(uint64_t id, uint64_t lookups) {
  const MutexLock lock(mutex_);
  const auto entry = entries_.find(id);
  if (id == kRootId || entry == entries_.end()) {
    return;
  }
  entry->second.lookups -= std::min(lookups, entry->second.lookups);
  if (entry->second.lookups == 0) {
    const auto by_key = ids_.find(entry->second.node->key());
    if (by_key != ids_.end() && by_key->second == id) {
      ids_.erase(by_key);
    }
    entries_.erase(entry);
  }
}

void NodeTable::retire(std::string_view key) {
  const MutexLock lock(mutex_);
  ids_.erase(key);
}

size_t NodeTable::size() const {
  const MutexLock lock(mutex_);
  return entries_.size();
}

}  // namespace qcache

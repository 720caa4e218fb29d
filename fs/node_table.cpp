#include "fs/node_table.h"

#include <algorithm>

namespace qcache {

NodeTable::NodeTable() {
  entries_[kRootId] = Entry{std::make_shared<const Node>(), 1};
}

uint64_t NodeTable::remember(Node node) {
  const MutexLock lock(mutex_);
  const auto known = ids_.find(node.key);
  if (known != ids_.end()) {
    ++entries_.at(known->second).lookups;
    return known->second;
  }
  const uint64_t id = next_id_++;
  ids_[node.key] = id;
  entries_[id] = Entry{std::make_shared<const Node>(std::move(node)), 1};
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
    const auto by_key = ids_.find(entry->second.node->key);
    if (by_key != ids_.end() && by_key->second == id) {
      ids_.erase(by_key);
    }
    entries_.erase(entry);
  }
}

void NodeTable::retire(const std::string& key) {
  const MutexLock lock(mutex_);
  ids_.erase(key);
}

size_t NodeTable::size() const {
  const MutexLock lock(mutex_);
  return entries_.size();
}

}  // namespace qcache

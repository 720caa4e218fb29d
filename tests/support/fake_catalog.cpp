#include "tests/support/fake_catalog.h"

#include <algorithm>
#include <optional>

namespace qcache {

Status FakeCatalog::enter(CatalogCall call, const std::string& file) {
  if (const auto kind = rules_.enter(call, file)) {
    return qcache::fail(*kind, "injected failure of the catalog at '" + file + "'");
  }
  return {};
}

Result<std::optional<Record>> FakeCatalog::find(const std::string& file) {
  QCACHE_TRY(enter(CatalogCall::kFind, file));
  const MutexLock lock(mutex_);
  const auto found = entries_.find(file);
  return found == entries_.end() ? std::nullopt : std::optional(found->second.record);
}

Result<std::vector<Sha256Digest>> FakeCatalog::tile_digests(const std::string& file) {
  QCACHE_TRY(enter(CatalogCall::kTileDigests, file));
  const MutexLock lock(mutex_);
  const auto found = entries_.find(file);
  return found == entries_.end() ? std::vector<Sha256Digest>() : found->second.tiles;
}

Result<std::vector<TensorQuality>> FakeCatalog::quality(const std::string& file, const Sha256Digest& contents) {
  QCACHE_TRY(enter(CatalogCall::kQuality, file));
  const MutexLock lock(mutex_);
  const auto found = entries_.find(file);
  const bool same_contents = found != entries_.end() && found->second.record.contents() == contents;
  return same_contents ? found->second.quality : std::vector<TensorQuality>();
}

Result<std::vector<Record>> FakeCatalog::list() {
  QCACHE_TRY(enter(CatalogCall::kList, ""));
  const MutexLock lock(mutex_);
  std::vector<Record> all;
  for (const auto& [file, entry] : entries_) {
    all.push_back(entry.record);
  }
  return all;
}

Result<std::vector<std::string>> FakeCatalog::files() {
  QCACHE_TRY(enter(CatalogCall::kFiles, ""));
  const MutexLock lock(mutex_);
  std::vector<std::string> all;
  for (const auto& [file, entry] : entries_) {
    all.push_back(file);
  }
  return all;
}

Result<std::vector<uint8_t>> FakeCatalog::parts(const std::string& file) {
  QCACHE_TRY(enter(CatalogCall::kParts, file));
  const MutexLock lock(mutex_);
  const auto found = entries_.find(file);
  return found == entries_.end() ? std::vector<uint8_t>() : found->second.parts;
}

Status FakeCatalog::put(const Record& record, std::span<const Sha256Digest> tiles, std::span<const uint8_t> parts,
                        std::span<const TensorQuality> quality) {
  QCACHE_TRY(enter(CatalogCall::kPut, record.file));
  QCACHE_TRY(check_entry(record, tiles));
  const MutexLock lock(mutex_);
  entries_[record.file] = {
      record, {tiles.begin(), tiles.end()}, {parts.begin(), parts.end()}, {quality.begin(), quality.end()}};
  return {};
}

Status FakeCatalog::amend(const std::string& file, const Sha256Digest& contents, const Amendment& amendment) {
  QCACHE_TRY(enter(CatalogCall::kAmend, file));
  const MutexLock lock(mutex_);
  const auto found = entries_.find(file);
  if (found == entries_.end() || found->second.record.contents() != contents) {
    return qcache::fail(ErrorKind::kNotFound, file + " is not in the catalog");
  }
  found->second.record.sha256 = amendment.sha256;
  if (!amendment.quality.empty()) {
    found->second.quality = amendment.quality;
  }
  return {};
}

Status FakeCatalog::erase(const std::string& file) {
  QCACHE_TRY(enter(CatalogCall::kErase, file));
  const MutexLock lock(mutex_);
  entries_.erase(file);
  return {};
}

Status FakeCatalog::touch(std::span<const AccessUpdate> updates) {
  QCACHE_TRY(enter(CatalogCall::kTouch, ""));
  const MutexLock lock(mutex_);
  for (const AccessUpdate& update : updates) {
    if (const auto found = entries_.find(update.file); found != entries_.end()) {
      Record& record = found->second.record;
      record.accessed_ns = std::max(record.accessed_ns, update.accessed_ns);
      record.hits += update.hits;
    }
  }
  return {};
}

Status FakeCatalog::set_pinned(const std::string& file, bool pinned) {
  QCACHE_TRY(enter(CatalogCall::kSetPinned, file));
  const MutexLock lock(mutex_);
  const auto found = entries_.find(file);
  if (found == entries_.end()) {
    return qcache::fail(ErrorKind::kNotFound, file + " is not in the catalog");
  }
  found->second.record.pinned = pinned;
  return {};
}

}  // namespace qcache

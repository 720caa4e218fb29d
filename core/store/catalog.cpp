#include "core/store/catalog.h"

#include <fmt/format.h>

#include <map>

#include "core/base/env.h"
#include "core/base/mutex.h"
#include "core/store/catalog_lmdb.h"

namespace qcache {
namespace {

// LMDB must not have one environment open twice in a process. An entry stays until its object is wholly closed: one
// whose object is being made or closed is expired, and openers wait for it to change.
struct Registry {
  Mutex mutex;
  CondVar changed;
  std::map<std::string, std::weak_ptr<Catalog>> catalogs QCACHE_GUARDED_BY(mutex);
};

Registry& registry() {
  static auto& registry = *new Registry;  // never destroyed: a catalog may be closed by another static's destructor
  return registry;
}

void forget(const std::string& path) {
  const MutexLock lock(registry().mutex);
  registry().catalogs.erase(path);
  registry().changed.notify_all();
}

// The object under `path`; null where there is none, and then the caller must make it or forget() the path.
std::shared_ptr<Catalog> find_or_reserve(const std::string& path) {
  Registry& all = registry();
  const MutexLock lock(all.mutex);
  for (;;) {
    const auto found = all.catalogs.find(path);
    if (found == all.catalogs.end()) {
      all.catalogs.emplace(path, std::weak_ptr<Catalog>());
      return nullptr;
    }
    if (std::shared_ptr<Catalog> catalog = found->second.lock()) {
      return catalog;
    }
    all.changed.wait(all.mutex);
  }
}

}  // namespace

Status Catalog::check_entry(const Record& record, std::span<const Sha256Digest> tiles) {
  if (tiles.size() != record.tile_count) {
    return fail(ErrorKind::kInternal, fmt::format("the record of {} has {} tiles but {} digests", record.file,
                                                  record.tile_count, tiles.size()));
  }
  Record amended = record;
  amended.sha256 = record.is_hashed() ? record.sha256 : record.root;
  if (record.file.empty() || record.file.size() > kMaxFileBytes || encode_record(amended).size() > kMaxRecordBytes) {
    return fail(ErrorKind::kInvalidArgument,
                fmt::format("a name in the record of {} is too long for the catalog", record.virtual_path));
  }
  return {};
}

Result<std::shared_ptr<Catalog>> Catalog::open(const std::string& path, const CatalogOptions& options) {
  QCACHE_TRY_ASSIGN(const std::string real, Env::posix().real_path(path));
  if (std::shared_ptr<Catalog> catalog = find_or_reserve(real)) {
    return catalog;
  }
  auto opened = open_lmdb_catalog(real, options);
  if (!opened.has_value()) {
    forget(real);
    return fail(std::move(opened).error());
  }
  const std::shared_ptr<Catalog> catalog(opened->release(), [real](Catalog* closing) {
    delete closing;
    forget(real);
  });
  const MutexLock lock(registry().mutex);
  registry().catalogs[real] = catalog;
  registry().changed.notify_all();
  return catalog;
}

}  // namespace qcache

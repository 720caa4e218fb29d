#include "core/qcache.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "core/base/env.h"
#include "core/quant/scheme.h"
#include "core/store/aging.h"
#include "core/store/cache_directory.h"
#include "core/store/store.h"

namespace qcache {
namespace {

Result<std::shared_ptr<Store>> open_store(const std::string& cache_dir) {
  QCACHE_TRY_ASSIGN(CacheDirectory directory, CacheDirectory::open_existing(Env::posix(), cache_dir));
  return Store::open(Env::posix(), std::move(directory));
}

}  // namespace

Result<std::string> get_quantized_model_cache_path(const std::string& model_path, std::string_view weight_dtype,
                                                   uint32_t rank) {
  const Scheme* const scheme = find_scheme(weight_dtype);
  if (scheme == nullptr) {
    return fail(ErrorKind::kInvalidArgument, fmt::format("'{}' is not a known dtype", weight_dtype));
  }
  QCACHE_TRY_ASSIGN(const std::string real, Env::posix().real_path(model_path));
  return default_cache_directory() + '/' + artifact_file_name(real, scheme->name(), rank);
}

Result<bool> validate_cache_integrity(const std::string& cache_path) {
  const auto found = Env::posix().real_path(cache_path);
  const bool exists = found.has_value();
  const std::string& real = exists ? *found : cache_path;
  const size_t slash = real.find_last_of('/');
  const std::string file = real.substr(slash + 1);
  if (!exists && (slash == std::string::npos || !is_artifact_file_name(file))) {
    return fail(found.error());
  }
  if (!is_artifact_file_name(file)) {
    return false;
  }
  auto store = open_store(real.substr(0, slash));
  if (!store.has_value()) {
    if (store.error().kind == ErrorKind::kNotFound && exists) {
      return false;  // a file outside any cache directory has no record
    }
    return fail(exists ? std::move(store).error() : found.error());
  }
  QCACHE_TRY_ASSIGN(std::vector<Record> records, (*store)->find_all(base_file_name(file)));
  if (file != base_file_name(file)) {
    std::erase_if(records, [&](const Record& record) { return record.file != file; });
  }
  if (records.empty()) {
    return exists ? Result<bool>(false) : fail(found.error());
  }
  bool whole = !exists || std::ranges::any_of(records, [&](const Record& record) { return record.file == file; });
  for (const Record& record : records) {
    QCACHE_TRY_ASSIGN(const bool right, (*store)->verify(record));
    whole = whole && right;
  }
  return whole;
}

Result<CacheInfo> get_cache_info(const std::string& cache_dir) {
  QCACHE_TRY_ASSIGN(const auto store, open_store(cache_dir));
  QCACHE_TRY_ASSIGN(const CacheTotals totals, store->totals());
  QCACHE_TRY_ASSIGN(const SpaceInfo space, Env::posix().space(store->directory().path()));
  return CacheInfo{store->directory().path(), totals.sealed_files + totals.filling_files, totals.disk_bytes,
                   space.available_bytes};
}

Result<CleanupReport> clear_old_cache_files(const std::string& cache_dir, uint32_t max_age_days) {
  QCACHE_TRY_ASSIGN(const auto store, open_store(cache_dir));
  AgingPolicy policy;
  policy.max_age = std::chrono::hours(24) * max_age_days;
  QCACHE_TRY_ASSIGN(const AgingReport aged, apply_aging(*store, policy, /*dry_run=*/false));
  CleanupReport report;
  report.freed_bytes = aged.bytes;
  for (const Victim& victim : aged.dropped) {
    report.removed.push_back(victim.entry.record.file);
  }
  return report;
}

Result<CleanupReport> cleanup_corrupted_cache(const std::string& cache_dir) {
  QCACHE_TRY_ASSIGN(const auto store, open_store(cache_dir));
  QCACHE_TRY_ASSIGN(const auto records, store->catalog().list());
  CleanupReport report;
  for (const Record& record : records) {
    const auto right = store->verify(record);
    if (right.value_or(false)) {
      continue;
    }
    std::string_view reason = "its bytes are not those that were saved";
    if (!right.has_value()) {
      switch (right.error().kind) {
        case ErrorKind::kBusy:
          continue;  // it is being removed
        case ErrorKind::kNotFound:
          reason = "its file is gone";
          break;
        case ErrorKind::kIo:
          reason = "its bytes cannot be read";
          break;
        default:
          return fail(right.error());
      }
    }
    QCACHE_TRY_ASSIGN(const auto dropped, store->drop_sealed(record, reason, WhenInUse::kDrop));
    if (dropped.has_value()) {
      report.removed.push_back(record.file);
      report.freed_bytes += *dropped;
    }
  }
  return report;
}

}  // namespace qcache

#pragma once

// The public interface of libqcache for programs that manage a cache directory without a mount. It works on the same
// files and records as running mounts, at the same time.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"

namespace qcache {

/// The path by which `model_path` (a folder; links are resolved) quantized to `weight_dtype` (a canonical name or
/// alias) with LoRA rank `rank` is cached, in the default cache directory. The file need not exist. Where the path
/// holds what was made of another state of the model, or by another build, the file lies beside it, as
/// `quantized_model_<md5>-<recipe>.bin`: the functions that take a cache path find it there.
Result<std::string> get_quantized_model_cache_path(const std::string& model_path, std::string_view weight_dtype,
                                                   uint32_t rank);

/// What the file at a cache path is made from: what get_quantized_model_cache_path() was given. The path itself does
/// not tell, it holds a digest of these.
struct ModelSource {
  std::string model_path;
  std::string weight_dtype;
  uint32_t rank = 0;
  /// The name by which `qcache ls` lists the file, where it is not that of the folder: "outer--inner" for the folder
  /// "outer/inner" of a mounted folder. Mounts serve the file whatever they call the model.
  std::string model_name = {};
};

/// Whether the sealed files at `cache_path` hold the bytes that their records say (SHA-256 over the whole files). Reads
/// each once. kNotFound where there is no such file; false where it has no record or differs.
Result<bool> validate_cache_integrity(const std::string& cache_path);

struct CacheInfo {
  std::string cache_dir;
  uint64_t file_count = 0;        ///< sealed and filling
  uint64_t total_size_bytes = 0;  ///< on disk
  uint64_t free_bytes = 0;        ///< on its filesystem
};
Result<CacheInfo> get_cache_info(const std::string& cache_dir);

struct CleanupReport {
  std::vector<std::string> removed;  ///< file names in the cache directory
  uint64_t freed_bytes = 0;
};

/// Drops files not read for `max_age_days`. Files in use and pinned files stay.
Result<CleanupReport> clear_old_cache_files(const std::string& cache_dir, uint32_t max_age_days = 7);

/// Hashes every sealed file and drops those that differ from their record, with the record.
Result<CleanupReport> cleanup_corrupted_cache(const std::string& cache_dir);

}  // namespace qcache

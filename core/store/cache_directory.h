#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/base/digest.h"
#include "core/base/env.h"
#include "core/base/result.h"

namespace qcache {

/// The same failure where it is one of the cache directory as a whole: kCacheUnusable, unless its kind says more.
[[nodiscard]] Error cache_unusable(Error error);

/// Makes the folder `path` (mode 0700) and those above it, where they are missing.
Status make_directories(Env& env, const std::string& path);

/// Where cached files lie when nobody says otherwise: `$QWEN_CACHE`, else `~/.cache/qwen_quantized`; for root
/// without HOME (as at boot) `/var/cache/qcache`.
[[nodiscard]] std::string default_cache_directory();

/// The file name of an artifact: `quantized_model_<md5 of "{model_path}_{weight_dtype}_{rank}"><extension>`.
/// `model_path` is the model folder with links resolved, `weight_dtype` a scheme's canonical name.
[[nodiscard]] std::string artifact_file_name(std::string_view model_path, std::string_view weight_dtype, uint32_t rank,
                                             std::string_view extension = ".bin");

/// The name for a file of `recipe` where another one's has the usual name `base` (an artifact_file_name()):
/// `quantized_model_<md5>-<first 16 hex digits of the recipe><extension>`.
[[nodiscard]] std::string file_name_beside(std::string_view base, const Sha256Digest& recipe);
/// The usual name of what `file` holds, which may be `file` itself.
[[nodiscard]] std::string base_file_name(std::string_view file);

/// Whether `name` is one that these functions make. Nothing else in a cache directory is ever removed.
[[nodiscard]] bool is_artifact_file_name(std::string_view name);

/// The folder that holds cached files, and the names in it:
///
///     CACHEDIR.TAG                 tells backup tools to skip the folder
///     index/                       the catalog (LMDB)
///     quantized_model_<md5>.bin    sealed files; of further recipes quantized_model_<md5>-<recipe>.bin
///     <same name>.map              what filling/ had of it: with that it can be checked should its record be lost
///     filling/<same name>          a file being made (sparse)
///     filling/<same name>.map      which of its tiles are made, and their digests
///     filling/lock                 held while names in this folder change
///
/// Immutable after open(); may be shared between threads.
class CacheDirectory {
 public:
  /// Creates what is missing (mode 0700) and checks that files can be made there. A full disk is no error: what is
  /// cached can still be served. A folder inside a mounted qcache is refused.
  /// Errors say which folder, and that --cache-dir or QWEN_CACHE choose another; as cache_unusable().
  static Result<CacheDirectory> open(Env& env, const std::string& path);
  /// The same for a cache directory that must exist already (else kNotFound): for commands that only look. Makes
  /// nothing.
  static Result<CacheDirectory> open_existing(Env& env, const std::string& path);

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string index_path() const { return path_ + "/index"; }
  [[nodiscard]] std::string filling_directory() const { return path_ + "/filling"; }
  [[nodiscard]] std::string lock_path() const { return path_ + "/filling/lock"; }
  [[nodiscard]] std::string sealed_path(std::string_view file) const;
  [[nodiscard]] std::string filling_path(std::string_view file) const;
  [[nodiscard]] std::string map_path(std::string_view file) const;
  /// Of the map of a sealed file.
  [[nodiscard]] std::string kept_map_path(std::string_view file) const;

 private:
  explicit CacheDirectory(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

}  // namespace qcache

#include "core/store/cache_directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <vector>

#include "core/base/digest.h"
#include "core/store/named_file.h"

namespace qcache {
namespace {

// A file is called `<prefix><md5>[-<start of its recipe>]<extension>`.
constexpr std::string_view kNamePrefix = "quantized_model_";
constexpr size_t kMd5Digits = 32;
constexpr size_t kUsualStemBytes = kNamePrefix.size() + kMd5Digits;
constexpr size_t kRecipeDigits = 16;
// Leaves room for ".map.new" within the 255 bytes that a file name may have, and for the catalog's keys.
constexpr size_t kMaxNameBytes = 200;

// https://bford.info/cachedir/: backup tools know the first line.
constexpr std::string_view kTag =
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This folder holds quantized models made by qcache. It can be removed: they are made again when read.\n";

constexpr std::string_view kChooseAnother = "--cache-dir or the environment variable QWEN_CACHE choose another folder";

Error explain(const Error& error, const std::string& path) {
  Error out = cache_unusable(error);
  out.message = fmt::format("the cache directory {} cannot be used ({}); {}", path, error.message, kChooseAnother);
  return out;
}

bool starts_with_hex(std::string_view text, size_t digits) {
  return text.size() >= digits &&
         text.substr(0, digits).find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

std::string_view environment(const char* name) {
  const char* const value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nobody sets variables
  return value != nullptr ? value : std::string_view();
}

std::string home_of_user() {
  if (const std::string_view home = environment("HOME"); !home.empty()) {
    return std::string(home);
  }
  passwd entry{};
  passwd* found = nullptr;
  std::array<char, 4096> buffer{};
  if (::getpwuid_r(::getuid(), &entry, buffer.data(), buffer.size(), &found) == 0 && found != nullptr) {
    return found->pw_dir;
  }
  return {};
}

Status make_missing_directory(Env& env, const std::string& path) {
  Status made = env.make_directory(path, 0700);
  if (!made.has_value() && made.error().sys_errno != EEXIST) {
    return made;
  }
  QCACHE_TRY_ASSIGN(const FileStat stat, env.stat(path));
  if (!stat.is_directory()) {
    return fail(ErrorKind::kCacheUnusable, path + " is not a directory");
  }
  return {};
}

// A mount that kept its cache inside itself, or in another mount that uses the same cache, would wait for itself. Every
// qcache mount has the file .qcache/status in its root.
Status refuse_inside_mount(Env& env, const std::string& path) {
  for (std::string above = path;;) {
    const auto status = env.stat(above + "/.qcache/status");
    if (status.has_value()) {
      return fail(ErrorKind::kCacheUnusable, fmt::format("the cache directory {} lies inside the qcache mount {}; {}",
                                                         path, above.empty() ? "/" : above, kChooseAnother));
    }
    const size_t slash = above.find_last_of('/');
    if (slash == std::string::npos) {
      return {};
    }
    above.resize(slash);
  }
}

Status write_tag(Env& env, const std::string& directory) {
  const std::string path = directory + "/CACHEDIR.TAG";
  QCACHE_TRY_ASSIGN(const bool taken, is_taken_by_others(env, path));
  if (taken || env.stat(path).has_value()) {
    return {};  // backups look for it, we do not
  }
  QCACHE_TRY_ASSIGN(const UniqueFd fd, open_named(env, path, O_WRONLY | O_CREAT, 0644));
  return env.write_at(fd.get(), std::as_bytes(std::span(kTag)), 0);
}

Status probe_writing(Env& env, const std::string& filling_directory) {
  static std::atomic<uint32_t> counter = 0;
  // Named as a leftover, so that gc removes it should we be killed here.
  const std::string path = fmt::format("{}/probe-{}-{}.new", filling_directory, ::getpid(), ++counter);
  QCACHE_TRY_ASSIGN(const UniqueFd fd, env.open(path, O_WRONLY | O_CREAT | O_EXCL, 0600));
  return remove_if_there(env, path);
}

// What leads elsewhere is not ours to write into, be it by a link.
Status refuse_what_is_not_ours(Env& env, const CacheDirectory& directory) {
  for (const std::string& inner : {directory.index_path(), directory.filling_directory()}) {
    const auto name = env.open(inner, O_PATH | O_NOFOLLOW);
    if (!name.has_value() && name.error().kind != ErrorKind::kNotFound) {
      return fail(name.error());
    }
    if (name.has_value()) {
      QCACHE_TRY_ASSIGN(const FileStat stat, env.stat(name->get()));
      if (!stat.is_directory()) {
        return fail(ErrorKind::kCacheUnusable, fmt::format("{} is not a folder: move it away", inner));
      }
    }
  }
  QCACHE_TRY_ASSIGN(const bool locked_out, is_taken_by_others(env, directory.lock_path()));
  return locked_out ? fail(ErrorKind::kCacheUnusable,
                           fmt::format("{} is not a regular file: move it away", directory.lock_path()))
                    : Status();
}

Status unless_full(Status status) {
  return !status.has_value() && status.error().kind == ErrorKind::kNoSpace ? Status() : status;
}

}  // namespace

Error cache_unusable(Error error) {
  switch (error.kind) {
    case ErrorKind::kInvalidArgument:
    case ErrorKind::kNotFound:
    case ErrorKind::kCorrupt:
    case ErrorKind::kIo:
      error.kind = ErrorKind::kCacheUnusable;
      break;
    default:
      break;  // says more
  }
  return error;
}

Status make_directories(Env& env, const std::string& path) {
  if (const auto there = env.stat(path); !there.has_value()) {
    if (there.error().kind != ErrorKind::kNotFound) {
      return fail(there.error());
    }
    const size_t slash = path.find_last_of('/');
    if (slash != std::string::npos && slash > 0) {
      QCACHE_TRY(make_directories(env, path.substr(0, slash)));
    }
  }
  return make_missing_directory(env, path);
}

std::string default_cache_directory() {
  if (const std::string_view chosen = environment("QWEN_CACHE"); !chosen.empty()) {
    return std::string(chosen);
  }
  if (environment("HOME").empty() && ::getuid() == 0) {
    return "/var/cache/qcache";
  }
  return home_of_user() + "/.cache/qwen_quantized";
}

std::string artifact_file_name(std::string_view model_path, std::string_view weight_dtype, uint32_t rank,
                               std::string_view extension) {
  return fmt::format("{}{}{}", kNamePrefix, md5_hex(fmt::format("{}_{}_{}", model_path, weight_dtype, rank)),
                     extension);
}

std::string base_file_name(std::string_view file) {
  std::string base(file);
  const std::string_view beyond = file.substr(std::min(kUsualStemBytes, file.size()));
  if (beyond.starts_with('-') && starts_with_hex(beyond.substr(1), kRecipeDigits)) {
    base.erase(kUsualStemBytes, 1 + kRecipeDigits);
  }
  return base;
}

std::string file_name_beside(std::string_view base, const Sha256Digest& recipe) {
  std::string name = base_file_name(base);
  name.insert(std::min(kUsualStemBytes, name.size()), '-' + to_hex(recipe).substr(0, kRecipeDigits));
  return name;
}

bool is_artifact_file_name(std::string_view name) {
  const std::string usual = base_file_name(name);
  if (!usual.starts_with(kNamePrefix) ||
      !starts_with_hex(std::string_view(usual).substr(kNamePrefix.size()), kMd5Digits)) {
    return false;
  }
  const std::string_view extension = std::string_view(usual).substr(kUsualStemBytes);
  return (extension.empty() || extension.starts_with('.')) && name.size() <= kMaxNameBytes &&
         extension.find('/') == std::string_view::npos && extension.find('\0') == std::string_view::npos &&
         !extension.ends_with(".map") && !extension.ends_with(".new");
}

Result<CacheDirectory> CacheDirectory::open(Env& env, const std::string& path) {
  if (path.empty()) {
    return fail(ErrorKind::kInvalidArgument, fmt::format("the cache directory has no name; {}", kChooseAnother));
  }
  if (const Status made = make_directories(env, path); !made.has_value()) {
    return fail(explain(made.error(), path));
  }
  const auto real = env.real_path(path);
  if (!real.has_value()) {
    return fail(explain(real.error(), path));
  }
  CacheDirectory directory(*real);
  QCACHE_TRY(refuse_inside_mount(env, directory.path_));
  if (const Status ours = unless_full(refuse_what_is_not_ours(env, directory)); !ours.has_value()) {
    return fail(explain(ours.error(), path));
  }
  for (const std::string& inner : {directory.index_path(), directory.filling_directory()}) {
    if (const Status made = make_missing_directory(env, inner); !made.has_value()) {
      return fail(explain(made.error(), path));
    }
  }
  if (const Status probed = unless_full(probe_writing(env, directory.filling_directory())); !probed.has_value()) {
    return fail(explain(probed.error(), path));
  }
  if (const Status tagged = unless_full(write_tag(env, directory.path_)); !tagged.has_value()) {
    return fail(explain(tagged.error(), path));
  }
  return directory;
}

Result<CacheDirectory> CacheDirectory::open_existing(Env& env, const std::string& path) {
  const auto real = env.real_path(path);
  if (!real.has_value()) {
    Error error = explain(real.error(), path);
    error.kind = real.error().kind == ErrorKind::kNotFound ? ErrorKind::kNotFound : error.kind;
    return fail(std::move(error));
  }
  QCACHE_TRY_ASSIGN(const FileStat whole, env.stat(*real));
  if (!whole.is_directory()) {
    return fail(explain(Error{ErrorKind::kCacheUnusable, 0, "it is not a directory"}, path));
  }
  CacheDirectory directory(*real);
  if (const Status ours = refuse_what_is_not_ours(env, directory); !ours.has_value()) {
    return fail(explain(ours.error(), path));
  }
  std::vector<std::string> missing;
  for (const std::string& inner : {directory.index_path(), directory.filling_directory()}) {
    const auto stat = env.stat(inner);
    if (!stat.has_value() && stat.error().kind != ErrorKind::kNotFound) {
      return fail(explain(stat.error(), path));
    }
    if (!stat.has_value() || !stat->is_directory()) {
      missing.push_back(inner);
    }
  }
  if (missing.size() == 1) {
    return fail(ErrorKind::kCacheUnusable,
                fmt::format("the cache directory {} is not whole ({} is missing): mounting with it makes that anew",
                            path, missing[0]));
  }
  if (!missing.empty()) {
    return fail(ErrorKind::kNotFound, fmt::format("{} is not a cache directory of qcache ({} is missing); {}", path,
                                                  missing[0], kChooseAnother));
  }
  return directory;
}

std::string CacheDirectory::sealed_path(std::string_view file) const {
  return fmt::format("{}/{}", path_, file);
}

std::string CacheDirectory::filling_path(std::string_view file) const {
  return fmt::format("{}/filling/{}", path_, file);
}

std::string CacheDirectory::map_path(std::string_view file) const {
  return fmt::format("{}/filling/{}.map", path_, file);
}

std::string CacheDirectory::kept_map_path(std::string_view file) const {
  return fmt::format("{}/{}.map", path_, file);
}

}  // namespace qcache

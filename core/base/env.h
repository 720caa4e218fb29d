#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "core/base/unique_fd.h"

namespace qcache {

/// What stat(2) says of a file, times in nanoseconds since the epoch.
struct FileStat {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t size_bytes = 0;
  uint64_t allocated_bytes = 0;  ///< what it occupies on disk (holes do not count)
  int64_t mtime_ns = 0;
  int64_t ctime_ns = 0;
  mode_t mode = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;

  [[nodiscard]] bool is_directory() const;
  [[nodiscard]] bool is_regular() const;
};

/// Room on a filesystem, in bytes, as statvfs(3) tells it.
struct SpaceInfo {
  uint64_t total_bytes = 0;
  uint64_t available_bytes = 0;  ///< to this process
};

/// The seam to the operating system, for tests to let calls fail: names, reads, writes and clocks of `core`. LMDB, file
/// locks, mappings, fchmod, allocation and waiting go around it. All paths are absolute or relative to the working
/// directory; every error names the path or the purpose. Implementations are safe for concurrent use.
class Env {
 public:
  virtual ~Env() = default;

  /// The real operating system. Lives for the whole process.
  static Env& posix();

  /// open(2) with O_CLOEXEC added.
  virtual Result<UniqueFd> open(const std::string& path, int flags, mode_t mode = 0) = 0;
  /// Reads until `out` is full or the file ends; returns the bytes read.
  virtual Result<size_t> read_at(int fd, std::span<std::byte> out, uint64_t offset) = 0;
  /// Writes all of `bytes`, or fails.
  virtual Status write_at(int fd, std::span<const std::byte> bytes, uint64_t offset) = 0;
  virtual Status truncate(int fd, uint64_t size_bytes) = 0;
  /// Makes a file's bytes and size durable (fdatasync).
  virtual Status sync(int fd) = 0;
  /// Makes the names in a directory durable.
  virtual Status sync_directory(const std::string& path) = 0;
  virtual Status rename(const std::string& from, const std::string& to) = 0;
  virtual Status remove(const std::string& path) = 0;
  virtual Status make_directory(const std::string& path, mode_t mode) = 0;
  virtual Result<FileStat> stat(const std::string& path) = 0;
  virtual Result<FileStat> stat(int fd) = 0;
  /// Names in a directory without "." and "..", in no particular order.
  virtual Result<std::vector<std::string>> list(const std::string& path) = 0;
  /// The absolute path with every link resolved.
  virtual Result<std::string> real_path(const std::string& path) = 0;
  /// Where an open file lies now: its absolute path without links, as the kernel knows it. It may be opened with
  /// O_PATH. kNotFound where the file has no name any more.
  virtual Result<std::string> path_of(int fd) = 0;
  virtual Result<SpaceInfo> space(const std::string& path) = 0;
  /// Wall clock, nanoseconds since the epoch. People and other machines set it, forwards and back.
  virtual int64_t now_ns() = 0;
  /// Nanoseconds since some moment before this process began: never goes back, and nobody sets it.
  virtual int64_t monotonic_ns() = 0;
};

}  // namespace qcache

#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/byte_range.h"
#include "core/base/result.h"
#include "core/base/unique_fd.h"

namespace qcache {

/// What stat(2) says of a file, times in nanoseconds since the epoch.
struct FileStat {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t size_bytes = 0;
  uint64_t allocated_bytes = 0;  ///< what it occupies on disk (holes do not count)
  uint64_t links = 0;            ///< the names it has
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

enum class LockKind { kShared, kExclusive };

/// How a file is about to be read.
enum class ReadPattern {
  kNormal,  ///< mostly onwards: the kernel may read ahead
  kRandom,  ///< it reads what is asked for, and no more
};

/// The seam to the operating system, for tests to let calls fail, count them and delay them: all that `core` does to
/// files of models and of a cache directory, the locks it takes on them, and the clocks and pauses by which it ages
/// them and waits for them.
///
/// Around it go
/// - the catalog's own files: LMDB makes its calls itself, and what keeps order among those who have them open
///   (LmdbEnvironment, CatalogPresence, CatalogLocks) works on the real ones, whatever Env a Store was given. The seam
///   there is Catalog;
/// - memory and processes: mappings, how much memory there is, the workers for factors;
/// - waits of threads for each other, and the engine's pauses that are for no lock.
///
/// All paths are absolute or relative to the working directory; every error names the path or the purpose.
/// Implementations are safe for concurrent use.
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
  /// Gives the first `size_bytes` of a file their blocks, and the file at least that size (posix_fallocate).
  virtual Status allocate(int fd, uint64_t size_bytes) = 0;
  /// Takes the blocks of a range from a file, whose size stays: it reads as zeros.
  virtual Status punch_hole(int fd, ByteRange range) = 0;
  /// Makes a file's bytes and size durable (fdatasync).
  virtual Status sync(int fd) = 0;
  /// Makes the names in a directory durable.
  virtual Status sync_directory(const std::string& path) = 0;
  /// Has the kernel begin to write what of a file is not on disk, and does not wait for it. A hint: what fails shows in
  /// sync().
  virtual Status start_writeback(int fd) = 0;
  /// A hint for the whole file.
  virtual Status advise(int fd, ReadPattern pattern) = 0;
  virtual Status change_mode(int fd, mode_t mode) = 0;
  /// Sets a file's times to now.
  virtual Status touch(int fd) = 0;
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

  // Advisory locks, which belong to an open file, not to a process or a thread, and go with it. None of these waits.

  /// Locks a whole file (flock); false where another open file has it. A lock that this one has changes its kind.
  virtual Result<bool> try_lock(int fd, LockKind kind) = 0;
  /// Closing alone would not do while a child process that is just being started has the descriptor too.
  virtual Status unlock(int fd) = 0;
  /// The same for the byte [offset, offset + 1), which need not be there (F_OFD_SETLK). Locks of whole files and of
  /// bytes do not see each other.
  virtual Result<bool> try_lock_byte(int fd, uint64_t offset, LockKind kind) = 0;
  virtual Status unlock_byte(int fd, uint64_t offset) = 0;

  /// Wall clock, nanoseconds since the epoch. People and other machines set it, forwards and back.
  virtual int64_t now_ns() = 0;
  /// Nanoseconds since some moment before this process began: never goes back, and nobody sets it.
  virtual int64_t monotonic_ns() = 0;
  /// Lets the calling thread rest, by the clock of monotonic_ns().
  virtual void sleep(int64_t ns) = 0;

  /// Tells that the code has come to `point`, a moment between two steps that no other call here marks. Nothing comes
  /// of it but in tests, which stop the world there.
  virtual void reached([[maybe_unused]] std::string_view point) {}
};

}  // namespace qcache

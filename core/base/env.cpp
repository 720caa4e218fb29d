#include "core/base/env.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <string_view>
#include <thread>

namespace qcache {
namespace {

constexpr int64_t kNanosecondsPerSecond = 1'000'000'000;

int64_t to_ns(const timespec& time) {
  return int64_t{time.tv_sec} * kNanosecondsPerSecond + int64_t{time.tv_nsec};
}

FileStat from_stat(const struct ::stat& st) {
  FileStat out;
  out.device = st.st_dev;
  out.inode = st.st_ino;
  out.size_bytes = static_cast<uint64_t>(st.st_size);
  out.allocated_bytes = static_cast<uint64_t>(st.st_blocks) * 512;
  out.links = st.st_nlink;
  out.mtime_ns = to_ns(st.st_mtim);
  out.ctime_ns = to_ns(st.st_ctim);
  out.mode = st.st_mode;
  out.uid = st.st_uid;
  out.gid = st.st_gid;
  return out;
}

Error path_error(std::string_view verb, const std::string& path) {
  const int saved = errno;
  std::string what("cannot ");
  what += verb;
  what += ' ';
  what += path;
  return system_error(saved, what);
}

// What the kernel calls an open file: empty where that cannot be told. A file whose name is gone has " (deleted)" after
// it.
std::string link_of(int fd) {
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  std::string target(PATH_MAX, '\0');
  const ssize_t size = ::readlink(link.c_str(), target.data(), target.size());
  target.resize(size > 0 ? static_cast<size_t>(size) : 0);
  return target;
}

// The path behind a descriptor, for messages only.
std::string name_of(int fd) {
  std::string name = link_of(fd);
  return name.empty() ? "file descriptor " + std::to_string(fd) : name;
}

Error fd_error(std::string_view verb, int fd) {
  const int saved = errno;
  const std::string name = name_of(fd);
  errno = saved;
  return path_error(verb, name);
}

// The two calls that return what others leave in errno.
Status from_returned(int error, std::string_view verb, int fd) {
  if (error != 0) {
    errno = error;
    return fail(fd_error(verb, fd));
  }
  return {};
}

// The lock `type` (F_RDLCK, F_WRLCK, F_UNLCK) on the byte at `offset`.
struct ::flock byte_lock(short type, uint64_t offset) {
  struct ::flock range {};
  range.l_type = type;
  range.l_whence = SEEK_SET;
  range.l_start = static_cast<off_t>(offset);
  range.l_len = 1;
  return range;
}

class PosixEnv final : public Env {
 public:
  Result<UniqueFd> open(const std::string& path, int flags, mode_t mode) override {
    for (;;) {
      const int fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
      if (fd >= 0) {
        return UniqueFd(fd);
      }
      if (errno != EINTR) {
        return fail(path_error("open", path));
      }
    }
  }

  Result<size_t> read_at(int fd, std::span<std::byte> out, uint64_t offset) override {
    size_t done = 0;
    while (done < out.size()) {
      const ssize_t n = ::pread(fd, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
      if (n == 0) {
        break;
      }
      if (n < 0) {
        if (errno == EINTR) {
          continue;
        }
        return fail(fd_error("read", fd));
      }
      done += static_cast<size_t>(n);
    }
    return done;
  }

  Status write_at(int fd, std::span<const std::byte> bytes, uint64_t offset) override {
    size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t n = ::pwrite(fd, bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
      if (n < 0) {
        if (errno == EINTR) {
          continue;
        }
        return fail(fd_error("write", fd));
      }
      done += static_cast<size_t>(n);
    }
    return {};
  }

  Status truncate(int fd, uint64_t size_bytes) override {
    if (::ftruncate(fd, static_cast<off_t>(size_bytes)) != 0) {
      return fail(fd_error("set the size of", fd));
    }
    return {};
  }

  Status allocate(int fd, uint64_t size_bytes) override {
    return from_returned(::posix_fallocate(fd, 0, static_cast<off_t>(size_bytes)), "allocate blocks for", fd);
  }

  Status punch_hole(int fd, ByteRange range) override {
    if (::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(range.offset),
                    static_cast<off_t>(range.size)) != 0) {
      return fail(fd_error("punch a hole into", fd));
    }
    return {};
  }

  Status sync(int fd) override {
    if (::fdatasync(fd) != 0) {
      return fail(fd_error("sync", fd));
    }
    return {};
  }

  Status sync_directory(const std::string& path) override {
    QCACHE_TRY_ASSIGN(const UniqueFd fd, open(path, O_RDONLY | O_DIRECTORY, 0));
    if (::fsync(fd.get()) != 0) {
      return fail(path_error("sync directory", path));
    }
    return {};
  }

  Status start_writeback(int fd) override {
    if (::sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE) != 0) {
      return fail(fd_error("begin to write", fd));
    }
    return {};
  }

  Status advise(int fd, ReadPattern pattern) override {
    const int advice = pattern == ReadPattern::kRandom ? POSIX_FADV_RANDOM : POSIX_FADV_NORMAL;
    return from_returned(::posix_fadvise(fd, 0, 0, advice), "tell how to read", fd);
  }

  Status change_mode(int fd, mode_t mode) override {
    if (::fchmod(fd, mode) != 0) {
      return fail(fd_error("change the permissions of", fd));
    }
    return {};
  }

  Status touch(int fd) override {
    if (::futimens(fd, nullptr) != 0) {
      return fail(fd_error("set the times of", fd));
    }
    return {};
  }

  Status rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) {
      return fail(path_error("rename " + from + " to", to));
    }
    return {};
  }

  Status remove(const std::string& path) override {
    if (::unlink(path.c_str()) != 0) {
      return fail(path_error("remove", path));
    }
    return {};
  }

  Status make_directory(const std::string& path, mode_t mode) override {
    if (::mkdir(path.c_str(), mode) != 0) {
      return fail(path_error("create directory", path));
    }
    return {};
  }

  Result<FileStat> stat(const std::string& path) override {
    struct ::stat st {};
    if (::stat(path.c_str(), &st) != 0) {
      return fail(path_error("stat", path));
    }
    return from_stat(st);
  }

  Result<FileStat> stat(int fd) override {
    struct ::stat st {};
    if (::fstat(fd, &st) != 0) {
      return fail(fd_error("stat", fd));
    }
    return from_stat(st);
  }

  Result<std::vector<std::string>> list(const std::string& path) override {
    struct Closer {
      void operator()(DIR* dir) const { ::closedir(dir); }
    };
    const std::unique_ptr<DIR, Closer> dir(::opendir(path.c_str()));
    if (!dir) {
      return fail(path_error("list", path));
    }
    std::vector<std::string> names;
    for (;;) {
      errno = 0;
      // readdir is safe here: no other thread has this DIR. NOLINTNEXTLINE(concurrency-mt-unsafe)
      const dirent* entry = ::readdir(dir.get());
      if (entry == nullptr) {
        if (errno != 0) {
          return fail(path_error("list", path));
        }
        return names;
      }
      const std::string_view name(static_cast<const char*>(entry->d_name));
      if (name != "." && name != "..") {
        names.emplace_back(name);
      }
    }
  }

  Result<std::string> real_path(const std::string& path) override {
    struct Freer {
      void operator()(char* p) const { std::free(p); }  // NOLINT(cppcoreguidelines-no-malloc)
    };
    const std::unique_ptr<char, Freer> resolved(::realpath(path.c_str(), nullptr));
    if (!resolved) {
      return fail(path_error("resolve", path));
    }
    return std::string(resolved.get());
  }

  Result<std::string> path_of(int fd) override {
    // A file may also be called "x (deleted)": the count of its names tells.
    struct ::stat st {};
    if (::fstat(fd, &st) != 0) {
      return fail(fd_error("stat", fd));
    }
    std::string path = link_of(fd);
    if (!path.starts_with('/') || st.st_nlink == 0) {
      return fail(ErrorKind::kNotFound, path.empty() ? name_of(fd) + " has no name" : path + " has no name any more");
    }
    return path;
  }

  Result<SpaceInfo> space(const std::string& path) override {
    struct ::statvfs st {};
    if (::statvfs(path.c_str(), &st) != 0) {
      return fail(path_error("read the free space of", path));
    }
    return SpaceInfo{uint64_t{st.f_blocks} * st.f_frsize, uint64_t{st.f_bavail} * st.f_frsize};
  }

  Result<bool> try_lock(int fd, LockKind kind) override {
    const int operation = kind == LockKind::kShared ? LOCK_SH : LOCK_EX;
    while (::flock(fd, operation | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) {
        return false;
      }
      if (errno != EINTR) {
        return fail(fd_error("lock", fd));
      }
    }
    return true;
  }

  Status unlock(int fd) override {
    if (::flock(fd, LOCK_UN) != 0) {
      return fail(fd_error("unlock", fd));
    }
    return {};
  }

  Result<bool> try_lock_byte(int fd, uint64_t offset, LockKind kind) override {
    struct ::flock range = byte_lock(kind == LockKind::kShared ? F_RDLCK : F_WRLCK, offset);
    while (::fcntl(fd, F_OFD_SETLK, &range) != 0) {
      if (errno == EAGAIN || errno == EACCES) {
        return false;
      }
      if (errno != EINTR) {
        return fail(fd_error("lock a byte of", fd));
      }
    }
    return true;
  }

  Status unlock_byte(int fd, uint64_t offset) override {
    struct ::flock range = byte_lock(F_UNLCK, offset);
    if (::fcntl(fd, F_OFD_SETLK, &range) != 0) {
      return fail(fd_error("unlock a byte of", fd));
    }
    return {};
  }

  int64_t now_ns() override { return read_clock(CLOCK_REALTIME); }
  int64_t monotonic_ns() override { return read_clock(CLOCK_MONOTONIC); }
  void sleep(int64_t ns) override { std::this_thread::sleep_for(std::chrono::nanoseconds(ns)); }

 private:
  static int64_t read_clock(clockid_t clock) {
    timespec now{};
    ::clock_gettime(clock, &now);
    return to_ns(now);
  }
};

}  // namespace

bool FileStat::is_directory() const {
  return S_ISDIR(mode);
}
bool FileStat::is_regular() const {
  return S_ISREG(mode);
}

Env& Env::posix() {
  static PosixEnv env;
  return env;
}

}  // namespace qcache

// A filesystem for tests of what happens when a server stops: shows SOURCE, read-only, on MOUNTPOINT, and keeps nothing
// in the kernel, so that a program which looks at anything waits while this process is stopped. With AHEAD, all times
// lie so many seconds further on, as on a server whose clock is ahead. Ends with the process that started it.

#define FUSE_USE_VERSION 35

#include <dirent.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <string>

#include <fuse.h>

namespace {

std::string source;  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables): set once, before serving
long ahead = 0;      // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)

std::string real(const char* path) {
  return source + path;
}

void* start(fuse_conn_info* /*connection*/, fuse_config* config) {
  config->attr_timeout = 0;
  config->entry_timeout = 0;
  config->negative_timeout = 0;
  config->use_ino = 1;
  config->direct_io = 1;
  return nullptr;
}

int get_attributes(const char* path, struct stat* out, fuse_file_info* /*file*/) {
  if (::lstat(real(path).c_str(), out) != 0) {
    return -errno;
  }
  out->st_mtim.tv_sec += ahead;
  out->st_ctim.tv_sec += ahead;
  return 0;
}

int read_link(const char* path, char* out, size_t size) {
  const ssize_t got = ::readlink(real(path).c_str(), out, size - 1);
  if (got < 0) {
    return -errno;
  }
  out[got] = '\0';
  return 0;
}

int read_directory(const char* path, void* out, fuse_fill_dir_t fill, off_t /*offset*/, fuse_file_info* /*file*/,
                   fuse_readdir_flags /*flags*/) {
  DIR* const directory = ::opendir(real(path).c_str());
  if (directory == nullptr) {
    return -errno;
  }
  while (const dirent* entry = ::readdir(directory)) {  // NOLINT(concurrency-mt-unsafe): one thread
    fill(out, entry->d_name, nullptr, 0, static_cast<fuse_fill_dir_flags>(0));
  }
  ::closedir(directory);
  return 0;
}

int open_file(const char* path, fuse_file_info* file) {
  const int fd = ::open(real(path).c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return -errno;
  }
  file->fh = static_cast<uint64_t>(fd);
  return 0;
}

int read_file(const char* /*path*/, char* out, size_t size, off_t offset, fuse_file_info* file) {
  const ssize_t got = ::pread(static_cast<int>(file->fh), out, size, offset);
  return got < 0 ? -errno : static_cast<int>(got);
}

int release_file(const char* /*path*/, fuse_file_info* file) {
  ::close(static_cast<int>(file->fh));
  return 0;
}

}  // namespace

int main(int count, char** words) {
  if (count < 3) {
    return EXIT_FAILURE;
  }
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  source = words[1];
  ahead = count > 3 ? std::atol(words[3]) : 0;  // NOLINT(cert-err34-c)
  fuse_operations operations{};
  operations.init = start;
  operations.getattr = get_attributes;
  operations.readlink = read_link;
  operations.readdir = read_directory;
  operations.open = open_file;
  operations.read = read_file;
  operations.release = release_file;
  std::string program = "stoppable_fs";
  std::string foreground = "-f";
  std::string one_thread = "-s";
  char* arguments[] = {program.data(), foreground.data(), one_thread.data(), words[2]};
  return fuse_main(4, arguments, &operations, nullptr);
}

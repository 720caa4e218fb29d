#include "tests/support/test_files.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <system_error>

namespace qcache {
namespace fs = std::filesystem;

namespace {

[[noreturn]] void give_up(const std::string& what, const std::string& path) {
  throw std::runtime_error("cannot " + what + ' ' + path + ": " + std::generic_category().message(errno));
}

}  // namespace

void write_file(const std::string& path, std::string_view content) {
  make_directories(fs::path(path).parent_path());
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(content.data(), static_cast<std::streamsize>(content.size()));
  out.close();
  if (!out) {
    give_up("write", path);
  }
}

void flip_byte(const std::string& path, uint64_t offset) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(offset));
  const auto byte = static_cast<char>(file.get() ^ 1);
  file.seekp(static_cast<std::streamoff>(offset));
  file.put(byte);
  if (!file.flush()) {
    give_up("damage", path);
  }
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream content;
  content << in.rdbuf();
  if (!in) {
    give_up("read", path);
  }
  return content.str();
}

void make_directories(const std::string& path) {
  fs::create_directories(path);
}

void make_link(const std::string& target, const std::string& path) {
  make_directories(fs::path(path).parent_path());
  fs::create_symlink(target, path);
}

void set_mtime(const std::string& path, int64_t mtime_ns) {
  constexpr int64_t kNanosecondsPerSecond = 1'000'000'000;
  timespec times[2]{};
  times[0].tv_nsec = UTIME_OMIT;
  times[1].tv_sec = mtime_ns / kNanosecondsPerSecond;
  times[1].tv_nsec = mtime_ns % kNanosecondsPerSecond;
  if (::utimensat(AT_FDCWD, path.c_str(), static_cast<const timespec*>(times), 0) != 0) {
    give_up("set the time of", path);
  }
}

std::string_view as_text(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace qcache

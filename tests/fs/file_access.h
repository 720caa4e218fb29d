#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/unique_fd.h"

namespace qcache {

// Files as an application sees them: plain system calls, with the errno where they fail.

/// Bytes, or why there are none.
struct ReadResult {
  std::string bytes;
  int error = 0;
};

/// Invalid where it cannot be opened; errno is left as it was set.
[[nodiscard]] UniqueFd open_file(const std::string& path);
/// 0, or the errno with which open(2) fails.
[[nodiscard]] int open_error(const std::string& path, int flags);
/// One pread(2).
[[nodiscard]] ReadResult read_at(int fd, uint64_t offset, size_t size);
/// Opens and reads to the end, `chunk` bytes at a time. `bytes` is what came before an error.
[[nodiscard]] ReadResult read_whole(const std::string& path, size_t chunk = size_t{1} << 20);
/// Throws where the file cannot be stat'ed.
[[nodiscard]] struct ::stat stat_of(const std::string& path);
/// 0, or the errno of stat(2).
[[nodiscard]] int stat_error(const std::string& path);
/// Sorted names, without "." and "..". Throws where it cannot be listed.
[[nodiscard]] std::vector<std::string> names_in(const std::string& folder);
/// 0, or the errno.
[[nodiscard]] int set_xattr(const std::string& path, const std::string& name, std::string_view value);

/// Fails with the place of the first difference instead of megabytes of text.
[[nodiscard]] ::testing::AssertionResult same_bytes(std::string_view got, std::string_view expected);
[[nodiscard]] inline ::testing::AssertionResult reads_as(const ReadResult& got, std::string_view expected) {
  return got.error != 0 ? ::testing::AssertionFailure() << "failed with errno " << got.error
                        : same_bytes(got.bytes, expected);
}

/// Turns one byte of a file into another, as a bad disk would: the modification time stays.
void damage_byte(const std::string& path, uint64_t offset);

/// A mapping of a whole file. Throws where it cannot be made.
class Mapping {
 public:
  Mapping(int fd, uint64_t size, int flags, int protection);
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  [[nodiscard]] std::string_view bytes() const { return {static_cast<const char*>(address_), size_}; }
  [[nodiscard]] char* data() { return static_cast<char*>(address_); }

 private:
  void* address_ = nullptr;
  size_t size_ = 0;
};

/// A child process that runs `body`; the destructor kills it. The test may have no second thread when it starts one.
class Child {
 public:
  explicit Child(const std::function<int()>& body);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  [[nodiscard]] pid_t pid() const { return pid_; }
  void signal(int number) const;
  /// Its exit status (what `body` returned; 99 where it threw), or 128 + the signal that ended it.
  int wait();
  /// wait() for at most `seconds`; -1 where it is still running then.
  int wait_for(int seconds);

 private:
  pid_t pid_ = -1;
};

}  // namespace qcache

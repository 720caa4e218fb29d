#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/base/unique_fd.h"
#include "tests/support/temp_dir.h"

namespace qcache {

/// README, "Exit codes".
namespace exits {
inline constexpr int kUsage = 2;
inline constexpr int kNotFound = 3;
inline constexpr int kCacheUnusable = 5;
inline constexpr int kMountFailed = 6;
inline constexpr int kInUse = 7;
}  // namespace exits

/// How a command ended, and all that it printed.
struct Said {
  int status = 0;
  std::string text;
};

/// Runs the real `qcache WORDS...`, by `launcher` where one is given.
Said run(const TempDir& dir, std::vector<std::string> words, std::vector<std::string> launcher = {});

/// Words before a program that run it as user nobody.
inline const std::vector<std::string> kAsNobody = {"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"};

/// Words before a program that run it in a mount namespace of its own, after the shell commands `prepare`, and as
/// `launcher` does.
[[nodiscard]] std::vector<std::string> after(const std::string& prepare, const std::vector<std::string>& launcher = {});

/// Why nobody cannot run the program under test, and look into `dir`, which others may do from here on; empty where
/// that works.
[[nodiscard]] std::string why_not_as_nobody(const TempDir& dir);

/// Whether it ended so, and said `word` somewhere.
testing::AssertionResult ends(const Said& said, int status, const std::string& word);

/// A number below /proc/sys that is changed for a moment only. Whoever does that at the same time waits.
class Sysctl {
 public:
  explicit Sysctl(const std::string& path);
  ~Sysctl();
  Sysctl(const Sysctl&) = delete;
  Sysctl& operator=(const Sysctl&) = delete;
  [[nodiscard]] bool set(const std::string& value) const;

 private:
  const UniqueFd fd_;
  std::string before_;
};

}  // namespace qcache

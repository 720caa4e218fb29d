#include "core/base/memory.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "tests/support/temp_dir.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

/// A machine with 1000 MiB available; the process is in the groups that `groups` names.
class UsableMemory : public testing::Test {
 protected:
  void put(const std::string& path, const std::string& text) const { write_file(root_ / path, text); }
  void set_up(const std::string& groups) const {
    put("proc/meminfo", "MemTotal:       2048000 kB\nMemFree: 1 kB\nMemAvailable:   1024000 kB\nBuffers: 7 kB\n");
    put("proc/self/cgroup", groups);
  }
  [[nodiscard]] uint64_t usable(uint64_t held = 0) const { return usable_memory(held, root_.path()); }

  TempDir root_;
};

TEST_F(UsableMemory, IsWhatTheSystemHasAndWhatIsHeldOfIt) {
  set_up("");
  EXPECT_EQ(usable(), 1000 * kMiB);
  EXPECT_EQ(usable(24 * kMiB), 1024 * kMiB);
}

TEST_F(UsableMemory, IsTheLeastLimitOfTheGroupAndOfThoseAboveIt) {
  set_up("0::/system.slice/q.service\n");
  put("sys/fs/cgroup/system.slice/q.service/memory.max", "max\n");
  EXPECT_EQ(usable(), 1000 * kMiB);
  put("sys/fs/cgroup/system.slice/memory.max", std::to_string(300 * kMiB) + "\n");
  EXPECT_EQ(usable(), 300 * kMiB);
  EXPECT_EQ(usable(50 * kMiB), 300 * kMiB) << "a limit is one for what is held, too";
  put("sys/fs/cgroup/system.slice/q.service/memory.high", std::to_string(200 * kMiB) + "\n");
  EXPECT_EQ(usable(), 200 * kMiB);
}

TEST_F(UsableMemory, KnowsGroupsOfTheFirstVersionAndOfContainers) {
  set_up("5:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/\n");
  put("sys/fs/cgroup/memory/memory.limit_in_bytes", std::to_string(400 * kMiB) + "\n");  // the container's own
  EXPECT_EQ(usable(), 400 * kMiB);
  put("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", std::to_string(100 * kMiB) + "\n");
  EXPECT_EQ(usable(), 100 * kMiB);
}

TEST_F(UsableMemory, IsNoMoreThanTheLimitOfTheProcess) {
  set_up("");
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_DATA, &before), 0);
  rlimit limited = before;
  limited.rlim_cur = 900 * kMiB;
  ASSERT_EQ(::setrlimit(RLIMIT_DATA, &limited), 0);
  EXPECT_EQ(usable(), 900 * kMiB);
  ASSERT_EQ(::setrlimit(RLIMIT_DATA, &before), 0);
}

TEST_F(UsableMemory, IsWithoutBoundWhereNothingIsKnown) {
  EXPECT_GE(usable(), uint64_t{1} << 62);
}

}  // namespace
}  // namespace qcache

#include "tools/mount_table.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include "tests/support/test_files.h"
#include "tests/tools/command_runner.h"

namespace qcache {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(MountTable, DecodesLinesOfMountinfo) {
  const auto mounts = parse_mount_info(
      "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
      "50 27 0:39 / /mnt/my\\040models\\134\\011x rw,nosuid shared:7 master:1 - fuse.qcache /m "
      "rw,user_id=1000,group_id=7\n"
      "51 27 0:40 /sub /mnt/bind rw - fuse.qcache /m rw,user_id=0\n"
      "not a line\n"
      "52 27 0:41 / /short\n"
      "53 27 0:42 / /no-type rw -\n"
      "54 27 0:43 / /no-options rw - fuse.qcache");
  ASSERT_EQ(mounts.size(), 4U);
  EXPECT_EQ(mounts[0].type, "proc");
  EXPECT_EQ(mounts[0].user_id, std::nullopt);
  EXPECT_EQ(mounts[1].mount_point, "/mnt/my models\\\tx");
  EXPECT_EQ(mounts[1].type, "fuse.qcache");
  EXPECT_EQ(mounts[1].root, "/");
  EXPECT_EQ(mounts[1].user_id, 1000U);
  EXPECT_EQ(mounts[2].root, "/sub");
  EXPECT_EQ(mounts[3].mount_point, "/no-options");
}

TEST(MountTable, LaterMountCoversEarlierOneOnTheSamePlace) {
  const auto mounts = parse_mount_info(
      "50 27 0:39 / /mnt rw - fuse.qcache /m rw\n"
      "51 50 0:40 / /mnt rw - tmpfs tmpfs rw\n");
  ASSERT_EQ(mounts.size(), 1U);
  EXPECT_EQ(mounts[0].type, "tmpfs");
}

TEST(MountTable, KeepsOnlyMountsThatAnswer) {
  CommandRunner runner;
  runner.show_mount(::geteuid());
  const std::string table = runner.dir() / "mountinfo";
  const auto running = running_mounts(Env::posix(), table);
  ASSERT_EQ(running.size(), 1U);
  EXPECT_EQ(running[0].mount_point, runner.mount());
  EXPECT_EQ(running[0].cache_directory, runner.cache());
  EXPECT_TRUE(running[0].own);

  runner.show_mount(::geteuid() + 1);
  EXPECT_FALSE(running_mounts(Env::posix(), table).at(0).own);

  for (const char* status : {"", "not json", "[]", R"({"cache_dir": 7})", "{}"}) {
    write_file(runner.mount() + "/.qcache/status", status);
    EXPECT_THAT(running_mounts(Env::posix(), table), IsEmpty()) << status;
  }
  EXPECT_THAT(running_mounts(Env::posix(), runner.dir() / "no-such-table"), IsEmpty());
}

TEST(MountTable, LocatesPathsInTheInnermostMount) {
  CommandRunner runner;
  const std::string outer = runner.dir() / "outer";
  make_directories(outer + "/inner/m");
  make_link(outer + "/inner", runner.dir() / "link");
  const std::vector<RunningMount> mounts = {{outer, "/c1", true}, {outer + "/inner", "/c2", true}};
  const auto locate = [&](const std::string& path) { return locate_in_mounts(Env::posix(), path, mounts); };

  ASSERT_TRUE(locate(outer + "/inner/m"));
  EXPECT_EQ(locate(outer + "/inner/m")->mount.cache_directory, "/c2");
  EXPECT_THAT(locate(outer + "/inner/m")->names, ElementsAre("m"));
  EXPECT_THAT(locate(runner.dir() / "link/m")->names, ElementsAre("m"));
  EXPECT_THAT(locate(outer)->names, IsEmpty());
  EXPECT_THAT(locate(outer + "/gone/../a//int8/0.bin")->names, ElementsAre("a", "int8", "0.bin"));
  EXPECT_FALSE(locate(outer + "side"));
  EXPECT_FALSE(locate("/"));
}

}  // namespace
}  // namespace qcache

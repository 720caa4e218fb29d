#include "tools/mount_table.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <sstream>

#include "tests/support/test_files.h"
#include "tests/tools/command_runner.h"
#include "tools/command.h"

namespace qcache {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(MountTable, KeepsOnlyMountsThatAnswer) {
  CommandRunner runner;
  runner.show_mount(::geteuid());
  std::ostringstream out;
  std::ostringstream err;
  CommandContext context{Env::posix(), out, err};
  context.mount_table = runner.dir() / "mountinfo";
  const std::vector<RunningMount> running = find_mounts(context).running;
  ASSERT_EQ(running.size(), 1U);
  EXPECT_EQ(running[0].mount_point, runner.mount());
  EXPECT_EQ(running[0].cache_directory, runner.cache());
  EXPECT_TRUE(running[0].own);

  runner.show_mount(::geteuid() + 1);
  EXPECT_FALSE(find_mounts(context).running.at(0).own);

  for (const char* status : {"", "not json", "[]", R"({"cache_dir": 7})", "{}"}) {
    write_file(runner.mount() + "/.qcache/status", status);
    EXPECT_THAT(find_mounts(context).running, IsEmpty()) << status;
  }
  context.mount_table = runner.dir() / "no-such-table";
  EXPECT_THAT(find_mounts(context).running, IsEmpty());
  EXPECT_EQ(err.str(), "");
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

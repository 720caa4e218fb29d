#include "tests/support/fake_env.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "tests/support/result_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

TEST(FakeEnv, FailsTheNthCallOnce) {
  FakeEnv env;
  env.fail(EnvCall::kStat, 2, EIO);
  EXPECT_THAT(env.stat("/"), is_ok());
  EXPECT_THAT(env.stat("/"), fails_with(ErrorKind::kIo, {"injected"}));
  EXPECT_THAT(env.stat("/"), is_ok());
  EXPECT_EQ(env.count(EnvCall::kStat), 3U);
  EXPECT_EQ(env.count(EnvCall::kOpen), 0U);
}

TEST(FakeEnv, FailsOnlyCallsOnTheGivenPathUntilHealed) {
  FakeEnv env;
  env.fail_all(EnvCall::kList, EACCES, "tmp");
  EXPECT_THAT(env.list("/tmp"), fails_with(ErrorKind::kPermission, {"/tmp"}));
  EXPECT_THAT(env.list("/"), is_ok());
  EXPECT_THAT(env.list("/tmp"), fails_with(ErrorKind::kPermission, {}));
  env.heal();
  EXPECT_THAT(env.list("/tmp"), is_ok());
}

TEST(FakeEnv, AFailingWriteHasWrittenHalf) {
  const TempDir dir;
  FakeEnv env;
  const auto fd = env.open(dir / "f", O_RDWR | O_CREAT, 0600);
  ASSERT_THAT(fd, is_ok());
  env.fail(EnvCall::kWriteAt, 1, ENOSPC, "/f");
  EXPECT_THAT(env.write_at(fd->get(), std::as_bytes(std::span("12345678", 8)), 0),
              fails_with(ErrorKind::kNoSpace, {"/f"}));
  EXPECT_EQ(read_file(dir / "f"), "1234");
}

TEST(FakeEnv, RunsAHookBeforeTheCall) {
  const TempDir dir;
  FakeEnv env;
  env.before(
      EnvCall::kStat, 1, [&] { write_file(dir / "f", "now there"); }, "/f");
  EXPECT_EQ(env.stat(dir / "f").value().size_bytes, 9U);
}

TEST(FakeEnv, ItsClockStandsStillWhenSet) {
  FakeEnv env;
  EXPECT_GT(env.now_ns(), 0);
  env.set_time(5);
  EXPECT_EQ(env.now_ns(), 5);
  env.advance(7);
  EXPECT_EQ(env.now_ns(), 12);
}

TEST(FakeEnv, TellsTheSpaceItWasGiven) {
  FakeEnv env;
  env.set_space({100, 3});
  EXPECT_EQ(env.space("/").value().available_bytes, 3U);
}

}  // namespace
}  // namespace qcache

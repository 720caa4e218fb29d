#include "tests/support/fake_env.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <functional>
#include <utility>

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

TEST(FakeEnv, AFailingCallHasNoEffect) {
  const TempDir dir;
  FakeEnv env;
  const auto fd = std::move(*env.open(dir / "f", O_RDWR | O_CREAT, 0600));
  const auto other = std::move(*env.open(dir / "f", O_RDWR, 0));
  ASSERT_THAT(env.write_at(fd.get(), std::as_bytes(std::span("12345678", 8)), 0), is_ok());
  set_mtime(dir / "f", 5);
  const struct {
    EnvCall call;
    std::function<Status()> make;
  } rows[] = {
      {EnvCall::kAllocate, [&] { return env.allocate(fd.get(), 10'000); }},
      {EnvCall::kPunchHole,
       [&] {
         return env.punch_hole(fd.get(), ByteRange{0, 8});
       }},
      {EnvCall::kStartWriteback, [&] { return env.start_writeback(fd.get()); }},
      {EnvCall::kAdvise, [&] { return env.advise(fd.get(), ReadPattern::kRandom); }},
      {EnvCall::kChangeMode, [&] { return env.change_mode(fd.get(), 0444); }},
      {EnvCall::kTouch, [&] { return env.touch(fd.get()); }},
      {EnvCall::kLock,
       [&]() -> Status {
         QCACHE_TRY(env.try_lock(fd.get(), LockKind::kExclusive));
         return {};
       }},
      {EnvCall::kLockByte,
       [&]() -> Status {
         QCACHE_TRY(env.try_lock_byte(fd.get(), 1, LockKind::kExclusive));
         return {};
       }},
      {EnvCall::kUnlock, [&] { return env.unlock(fd.get()); }},
      {EnvCall::kUnlockByte, [&] { return env.unlock_byte(fd.get(), 1); }},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(static_cast<int>(row.call));
    env.fail(row.call, 1, ENOLCK, "/f");
    EXPECT_THAT(row.make(), fails_with(ErrorKind::kIo, {"injected", "/f"}));
    EXPECT_EQ(env.count(row.call), 1U);
  }
  EXPECT_EQ(read_file(dir / "f"), "12345678");
  const auto stat = env.stat(fd.get());
  EXPECT_EQ(stat->mode & 0777U, 0600U);
  EXPECT_EQ(stat->mtime_ns, 5);
  EXPECT_EQ(env.try_lock(other.get(), LockKind::kExclusive), true);
  EXPECT_EQ(env.try_lock_byte(other.get(), 1, LockKind::kExclusive), true);
  for (const auto& row : rows) {
    ASSERT_THAT(env.unlock(other.get()), is_ok());
    ASSERT_THAT(env.unlock_byte(other.get(), 1), is_ok());
    EXPECT_THAT(row.make(), is_ok()) << static_cast<int>(row.call);
  }
  EXPECT_EQ(env.stat(fd.get())->size_bytes, 10'000U);
  EXPECT_EQ(env.stat(fd.get())->mode & 0777U, 0444U);
}

TEST(FakeEnv, WhoSleepsByAClockThatStandsDoesNotWait) {
  FakeEnv env;
  const int64_t begun_ns = Env::posix().monotonic_ns();
  env.sleep(1'000'000);
  EXPECT_GE(Env::posix().monotonic_ns() - begun_ns, 1'000'000) << "the clock goes";
  env.set_time(5);
  const int64_t monotonic_ns = env.monotonic_ns();
  constexpr int64_t kHour = 3'600'000'000'000;
  bool slept = false;
  env.before(EnvCall::kSleep, 1, [&] { slept = true; });
  env.sleep(kHour);
  EXPECT_TRUE(slept);
  EXPECT_EQ(env.now_ns(), 5 + kHour);
  EXPECT_GE(env.monotonic_ns() - monotonic_ns, kHour);
  EXPECT_EQ(env.count(EnvCall::kSleep), 2U);
}

TEST(FakeEnv, StopsTheWorldAtANamedMoment) {
  FakeEnv env;
  Env::posix().reached("here");
  env.reached("here");
  int times = 0;
  env.at("here", [&] {
    ++times;
    env.reached("there");  // a hook may make calls
  });
  env.reached("elsewhere");
  EXPECT_EQ(times, 0);
  env.reached("here");
  env.reached("here");
  EXPECT_EQ(times, 2);
  env.heal();
  env.reached("here");
  EXPECT_EQ(times, 2);
}

TEST(FakeEnv, TellsTheSpaceItWasGiven) {
  FakeEnv env;
  env.set_space({100, 3});
  EXPECT_EQ(env.space("/").value().available_bytes, 3U);
}

}  // namespace
}  // namespace qcache

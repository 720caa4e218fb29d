#include "core/store/file_lock.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <optional>
#include <thread>
#include <vector>

#include "tests/store/store_fixture.h"
#include "tests/support/fake_env.h"
#include "tests/support/result_matchers.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

class FileLockTest : public testing::Test {
 protected:
  void SetUp() override { write_file(path_, "x"); }
  UniqueFd open() { return std::move(*Env::posix().open(path_, O_RDWR)); }
  bool removable() { return RemovalLock::try_acquire(Env::posix(), path_)->has_value(); }

  TempDir dir_;
  const std::string path_ = dir_ / "file";
};

TEST_F(FileLockTest, LeasesShareAndKeepRemovalAway) {
  EXPECT_TRUE(removable());
  UniqueFd one = open();
  UniqueFd two = open();
  EXPECT_EQ(try_lease(Env::posix(), one.get()), true);
  EXPECT_EQ(try_lease(Env::posix(), two.get()), true);
  EXPECT_FALSE(removable());
  one.reset();
  EXPECT_FALSE(removable());
  two.reset();
  EXPECT_TRUE(removable());
}

TEST_F(FileLockTest, ALeaseOutlivesTheProcessThatTookItWhileItsOpenFileLives) {
  UniqueFd fd = open();
  ASSERT_EQ(try_lease(Env::posix(), fd.get()), true);
  const pid_t heir = start_child([] { return ::pause(); });  // has the open file, as the kernel has a passthrough file
  fd.reset();
  EXPECT_FALSE(removable());
  ::kill(heir, SIGKILL);
  EXPECT_EQ(wait_for_child(heir), 128 + SIGKILL);
  EXPECT_TRUE(removable());
}

TEST_F(FileLockTest, ALeaseIsRefusedWhileAFileIsBeingRemovedAndWaitsForAShortLook) {
  {
    const auto removal = RemovalLock::try_acquire(Env::posix(), path_);
    ASSERT_TRUE(removal->has_value());
    EXPECT_EQ(try_lease(Env::posix(), open().get()), false);
  }
  EXPECT_EQ(try_lease(Env::posix(), open().get()), true);

  std::atomic<bool> held = false;
  std::thread look([&] {
    const auto removal = RemovalLock::try_acquire(Env::posix(), path_);
    held = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  });
  while (!held) {
    std::this_thread::yield();
  }
  EXPECT_EQ(try_lease(Env::posix(), open().get()), true);
  look.join();
}

TEST_F(FileLockTest, AnAbsentFileIsFreeToRemove) {
  const auto removal = RemovalLock::try_acquire(Env::posix(), dir_ / "nothing");
  ASSERT_THAT(removal, is_ok());
  EXPECT_TRUE(removal->has_value());
}

TEST_F(FileLockTest, DirectoryLockAdmitsOneAtATime) {
  const std::string lock_path = dir_ / "lock";
  std::atomic<int> inside = 0;
  std::atomic<int> worst = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 50; ++round) {
        const auto lock = DirectoryLock::acquire(Env::posix(), lock_path);
        ASSERT_THAT(lock, is_ok());
        const int now = ++inside;
        worst = std::max(worst.load(), now);
        --inside;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(worst, 1);
}

TEST_F(FileLockTest, DirectoryLockIsFreeAgainWhenItsHolderIsKilled) {
  const std::string lock_path = dir_ / "lock";
  const pid_t holder = start_child([&] {
    const auto lock = DirectoryLock::acquire(Env::posix(), lock_path);
    write_file(dir_ / "held", "");
    return ::pause();
  });
  while (!StoreFixture::exists(dir_ / "held")) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  const auto raw = std::move(*Env::posix().open(lock_path, O_RDWR));
  EXPECT_NE(::flock(raw.get(), LOCK_EX | LOCK_NB), 0);
  ::kill(holder, SIGKILL);
  EXPECT_EQ(wait_for_child(holder), 128 + SIGKILL);
  EXPECT_THAT(DirectoryLock::acquire(Env::posix(), lock_path), is_ok());
}

TEST_F(FileLockTest, DirectoryLockIsFreeForOthersWhileAChildStillHasTheDescriptor) {
  const std::string lock_path = dir_ / "lock";
  pid_t child = 0;
  {
    const auto lock = DirectoryLock::acquire(Env::posix(), lock_path);
    child = start_child([] { return ::pause(); });
  }
  const auto raw = std::move(*Env::posix().open(lock_path, O_RDWR));
  EXPECT_EQ(::flock(raw.get(), LOCK_EX | LOCK_NB), 0);
  ::kill(child, SIGKILL);
  EXPECT_EQ(wait_for_child(child), 128 + SIGKILL);
}

TEST_F(FileLockTest, WhoeverKeepsTheDirectoryLockedForEverIsToldOfAfterHalfAMinute) {
  constexpr int64_t kPatienceNs = 30'000'000'000;
  const std::string lock_path = dir_ / "lock";
  const auto held = DirectoryLock::acquire(Env::posix(), lock_path);
  ASSERT_THAT(held, is_ok());
  FakeEnv env;
  env.set_time(0);
  const int64_t begun_ns = env.monotonic_ns();
  EXPECT_THAT(DirectoryLock::acquire(env, lock_path), fails_with(ErrorKind::kBusy, {lock_path, "30 s", "fuser"}));
  EXPECT_GE(env.monotonic_ns() - begun_ns, kPatienceNs);
  EXPECT_LT(env.now_ns(), kPatienceNs + 10'000'000) << "of which it slept";
}

TEST_F(FileLockTest, ADirectoryLockThatIsLetGoOfInTimeIsTaken) {
  const std::string lock_path = dir_ / "lock";
  std::optional<DirectoryLock> held(std::move(*DirectoryLock::acquire(Env::posix(), lock_path)));
  FakeEnv env;
  env.set_time(0);
  env.before(EnvCall::kSleep, 1'000, [&] { held.reset(); });
  EXPECT_THAT(DirectoryLock::acquire(env, lock_path), is_ok());
  EXPECT_EQ(env.count(EnvCall::kSleep), 1'000U);
}

TEST_F(FileLockTest, AFilesystemWithoutLocksIsAFailureAndNoWait) {
  FakeEnv env;
  env.fail_all(EnvCall::kLock, ENOLCK);
  EXPECT_THAT(DirectoryLock::acquire(env, dir_ / "lock"), fails_with(ErrorKind::kIo, {"lock"}));
  EXPECT_THAT(RemovalLock::try_acquire(env, path_), fails_with(ErrorKind::kIo, {path_}));
  EXPECT_THAT(try_lease(env, open().get()), fails_with(ErrorKind::kIo, {path_}));
  EXPECT_EQ(env.count(EnvCall::kSleep), 0U);
}

}  // namespace
}  // namespace qcache

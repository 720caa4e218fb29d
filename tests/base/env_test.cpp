#include "core/base/env.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>

#include "tests/support/temp_dir.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

TEST(PosixEnv, ReadsStopAtTheEndOfTheFile) {
  const TempDir dir;
  Env& env = Env::posix();
  const auto file = env.open(dir / "f", O_RDWR | O_CREAT, 0600);
  ASSERT_TRUE(file);
  const std::vector<std::byte> written(10, std::byte{7});
  ASSERT_TRUE(env.write_at(file->get(), written, 5));
  std::vector<std::byte> read(32);
  EXPECT_EQ(env.read_at(file->get(), read, 0), 15U);
  EXPECT_EQ(read[4], std::byte{0});
  EXPECT_EQ(read[5], std::byte{7});
  EXPECT_EQ(env.read_at(file->get(), read, 15), 0U);
}

TEST(PosixEnv, ErrorsNameThePath) {
  const TempDir dir;
  Env& env = Env::posix();
  const auto missing = env.open(dir / "nope", O_RDONLY);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().kind, ErrorKind::kNotFound);
  EXPECT_NE(missing.error().message.find("nope"), std::string::npos);

  const auto read_only = env.open(dir.path(), O_RDONLY | O_DIRECTORY);
  ASSERT_TRUE(read_only);
  std::vector<std::byte> buffer(1);
  const auto read = env.read_at(read_only->get(), buffer, 0);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().sys_errno, EISDIR);
  EXPECT_NE(read.error().message.find(dir.path()), std::string::npos) << read.error().message;
}

TEST(PosixEnv, TellsWhereAnOpenFileReallyLies) {
  const TempDir dir;
  Env& env = Env::posix();
  ASSERT_TRUE(env.open(dir / "x (deleted)", O_RDWR | O_CREAT, 0600));
  ASSERT_EQ(::symlink("x (deleted)", (dir / "link").c_str()), 0);
  const auto real = env.real_path(dir.path());
  ASSERT_TRUE(real);
  const auto file = env.open(dir / "link", O_PATH);
  ASSERT_TRUE(file);
  EXPECT_EQ(env.path_of(file->get()), *real + "/x (deleted)");
  ASSERT_TRUE(env.rename(dir / "x (deleted)", dir / "y"));
  EXPECT_EQ(env.path_of(file->get()), *real + "/y");
  ASSERT_TRUE(env.remove(dir / "y"));
  const auto gone = env.path_of(file->get());
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().kind, ErrorKind::kNotFound);
}

TEST(PosixEnv, HolesTakeNoSpace) {
  const TempDir dir;
  Env& env = Env::posix();
  const auto file = env.open(dir / "sparse", O_RDWR | O_CREAT, 0600);
  ASSERT_TRUE(file);
  ASSERT_TRUE(env.truncate(file->get(), uint64_t{1} << 40));
  const auto stat = env.stat(file->get());
  ASSERT_TRUE(stat);
  EXPECT_EQ(stat->size_bytes, uint64_t{1} << 40);
  EXPECT_EQ(stat->allocated_bytes, 0U);
  EXPECT_TRUE(stat->is_regular());
}

TEST(PosixEnv, BlocksAreHadBeforeTheyAreWrittenAndGivenBack) {
  const TempDir dir;
  Env& env = Env::posix();
  const auto file = env.open(dir / "f", O_RDWR | O_CREAT, 0600);
  ASSERT_TRUE(file);
  ASSERT_TRUE(env.allocate(file->get(), 100'000));
  EXPECT_EQ(env.stat(file->get())->size_bytes, 100'000U);
  EXPECT_GE(env.stat(file->get())->allocated_bytes, 100'000U);
  const std::vector<std::byte> written(100'000, std::byte{7});
  ASSERT_TRUE(env.write_at(file->get(), written, 0));
  ASSERT_TRUE(env.start_writeback(file->get()));
  ASSERT_TRUE(env.advise(file->get(), ReadPattern::kRandom));
  ASSERT_TRUE(env.punch_hole(file->get(), ByteRange{4096, 81'920}));
  EXPECT_EQ(env.stat(file->get())->size_bytes, 100'000U);
  EXPECT_LT(env.stat(file->get())->allocated_bytes, 50'000U);
  std::byte byte{};
  EXPECT_EQ(env.read_at(file->get(), {&byte, 1}, 4096), 1U);
  EXPECT_EQ(byte, std::byte{0});
}

TEST(PosixEnv, ChangesModesAndTimesAndCountsNames) {
  const TempDir dir;
  Env& env = Env::posix();
  const auto file = env.open(dir / "f", O_RDWR | O_CREAT, 0600);
  ASSERT_TRUE(file);
  ASSERT_TRUE(env.change_mode(file->get(), 0444));
  EXPECT_EQ(env.stat(dir / "f")->mode & 07777U, 0444U);
  set_mtime(dir / "f", 5);
  ASSERT_TRUE(env.touch(file->get()));
  EXPECT_GT(env.stat(file->get())->mtime_ns, 5);
  EXPECT_EQ(env.stat(file->get())->links, 1U);
  ASSERT_EQ(::link((dir / "f").c_str(), (dir / "other").c_str()), 0);
  EXPECT_EQ(env.stat(file->get())->links, 2U);
}

TEST(PosixEnv, LocksOfAFileExcludeOtherOpenFiles) {
  const TempDir dir;
  Env& env = Env::posix();
  const auto one = env.open(dir / "f", O_RDWR | O_CREAT, 0600);
  const auto two = env.open(dir / "f", O_RDWR, 0);
  ASSERT_TRUE(one && two);
  EXPECT_EQ(env.try_lock(one->get(), LockKind::kExclusive), true);
  EXPECT_EQ(env.try_lock(two->get(), LockKind::kShared), false);
  EXPECT_EQ(env.try_lock(one->get(), LockKind::kShared), true);
  EXPECT_EQ(env.try_lock(two->get(), LockKind::kShared), true);
  EXPECT_EQ(env.try_lock(two->get(), LockKind::kExclusive), false);
  ASSERT_TRUE(env.unlock(one->get()));
  EXPECT_EQ(env.try_lock(two->get(), LockKind::kExclusive), true);
  EXPECT_EQ(env.try_lock_byte(one->get(), 0, LockKind::kExclusive), true) << "which are another matter";
}

TEST(PosixEnv, ByteLocksExcludeOtherOpenFilesByteByByte) {
  const TempDir dir;
  Env& env = Env::posix();
  const auto one = env.open(dir / "f", O_RDWR | O_CREAT, 0600);
  const auto two = env.open(dir / "f", O_RDWR, 0);
  ASSERT_TRUE(one && two);
  EXPECT_EQ(env.try_lock_byte(one->get(), 5, LockKind::kExclusive), true);
  EXPECT_EQ(env.try_lock_byte(one->get(), 5, LockKind::kExclusive), true);
  EXPECT_EQ(env.try_lock_byte(two->get(), 5, LockKind::kExclusive), false);
  EXPECT_EQ(env.try_lock_byte(two->get(), 6, LockKind::kExclusive), true);
  ASSERT_TRUE(env.unlock_byte(one->get(), 5));
  EXPECT_EQ(env.try_lock_byte(two->get(), 5, LockKind::kExclusive), true);
  EXPECT_EQ(env.try_lock_byte(one->get(), 7, LockKind::kShared), true);
  EXPECT_EQ(env.try_lock_byte(two->get(), 7, LockKind::kShared), true);
  EXPECT_EQ(env.try_lock_byte(two->get(), 7, LockKind::kExclusive), false);
}

TEST(PosixEnv, SleepsByTheClockThatOnlyGoesOn) {
  Env& env = Env::posix();
  const int64_t begun_ns = env.monotonic_ns();
  env.sleep(2'000'000);
  EXPECT_GE(env.monotonic_ns() - begun_ns, 2'000'000);
}

TEST(PosixEnv, ListsNamesWithoutTheDots) {
  const TempDir dir;
  Env& env = Env::posix();
  ASSERT_TRUE(env.make_directory(dir / "a", 0700));
  EXPECT_EQ(env.list(dir.path()), std::vector<std::string>{"a"});
}

}  // namespace
}  // namespace qcache

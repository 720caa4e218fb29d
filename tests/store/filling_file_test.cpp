#include "core/store/filling_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "core/base/byte_range.h"
#include "core/store/file_lock.h"
#include "tests/store/store_fixture.h"
#include "tests/support/fake_env.h"
#include "tests/support/result_matchers.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

using std::chrono::milliseconds;

constexpr uint64_t kPage = 4096;

// How many pages of a range of a file the page cache holds.
size_t pages_in_memory(int fd, ByteRange range) {
  void* const mapped = ::mmap(nullptr, range.size, PROT_READ, MAP_SHARED, fd, static_cast<off_t>(range.offset));
  if (mapped == MAP_FAILED) {
    ADD_FAILURE() << "cannot map the file";
    return 0;
  }
  std::vector<unsigned char> resident(range.size / kPage);
  EXPECT_EQ(::mincore(mapped, range.size, resident.data()), 0);
  ::munmap(mapped, range.size);
  return static_cast<size_t>(std::ranges::count_if(resident, [](unsigned char page) { return (page & 1U) != 0; }));
}

class FillingFileTest : public testing::Test {
 protected:
  std::shared_ptr<FillingFile> open(const FillingKey& key) {
    auto file = FillingFile::open(Env::posix(), directory_, key);
    EXPECT_THAT(file, is_ok());
    return file.value_or(nullptr);
  }
  std::string data_path() { return directory_.filling_path(key_.file); }
  std::string map_path() { return directory_.map_path(key_.file); }
  std::vector<std::string> names() {
    auto names = *Env::posix().list(directory_.filling_directory());
    std::sort(names.begin(), names.end());
    return names;
  }

  StoreFixture fixture_;
  CacheDirectory directory_ = *CacheDirectory::open(Env::posix(), fixture_.path());
  const FillingKey key_ = StoreFixture::key();
};

TEST_F(FillingFileTest, StartsWithTheRightSizeAndNoTileAndNoDiskSpace) {
  const FillingKey big = StoreFixture::key(0, 1, uint64_t{1} << 38U);
  FillingKey key = big;
  key.tile_count = 70'000;
  const auto file = open(key);
  const auto stat = Env::posix().stat(file->fd());
  EXPECT_EQ(stat->size_bytes, big.size_bytes);
  EXPECT_EQ(stat->allocated_bytes, 0U);
  EXPECT_EQ(file->marked_count(), 0U);
  EXPECT_TRUE(file->is_current());
  EXPECT_EQ(names(), (std::vector<std::string>{"lock", key.file, key.file + ".map"}));
}

TEST_F(FillingFileTest, TwoOpenersShareBytesAndMarks) {
  const auto one = open(key_);
  const auto two = open(key_);
  ASSERT_THAT(StoreFixture::fill(Env::posix(), *one), is_ok());
  EXPECT_EQ(two->marked_count(), key_.tile_count);
  EXPECT_EQ(StoreFixture::bytes_of(two->fd()), StoreFixture::content(key_));
  EXPECT_TRUE(one->is_current());
  EXPECT_TRUE(two->is_current());
}

TEST_F(FillingFileTest, ResumesWhatAnEarlierProcessMade) {
  ASSERT_EQ(run_child([&] {
              const auto file = FillingFile::open(Env::posix(), directory_, key_);
              return StoreFixture::fill(Env::posix(), **file).value_or(0) == key_.tile_count ? 0 : 1;
            }),
            0);
  FillingKey seen_elsewhere = key_;
  seen_elsewhere.virtual_path = "other-mount/int8/0.bin";
  const auto file = open(seen_elsewhere);
  EXPECT_EQ(file->marked_count(), key_.tile_count);
  EXPECT_EQ(StoreFixture::fill(Env::posix(), *file), 0U);
}

TEST_F(FillingFileTest, AnotherRecipeNeverSharesBytes) {
  const auto old = open(key_);
  ASSERT_THAT(StoreFixture::fill(Env::posix(), *old), is_ok());
  const FillingKey changed = StoreFixture::key(0, 2);
  const auto file = open(changed);
  EXPECT_EQ(file->marked_count(), 0U);
  EXPECT_FALSE(old->is_current());
  // The old one goes on on its own inodes.
  EXPECT_EQ(StoreFixture::bytes_of(old->fd()), StoreFixture::content(key_));
  ASSERT_THAT(StoreFixture::fill(Env::posix(), *file), is_ok());
  EXPECT_EQ(StoreFixture::bytes_of(file->fd()), StoreFixture::content(changed));
  EXPECT_EQ(StoreFixture::bytes_of(old->fd()), StoreFixture::content(key_));
}

TEST_F(FillingFileTest, StartsAnewWhereThePairIsNotWhole) {
  const struct {
    const char* what;
    std::function<void()> damage;
  } rows[] = {
      {"no map", [&] { ::unlink(map_path().c_str()); }},
      {"no data", [&] { ::unlink(data_path().c_str()); }},
      {"map cut short", [&] { ASSERT_EQ(::truncate(map_path().c_str(), 5000), 0); }},
      {"map emptied", [&] { write_file(map_path(), ""); }},
      {"map of something else", [&] { write_file(map_path(), std::string(4096 + 5 * 64, 'x')); }},
      {"data cut short", [&] { ASSERT_EQ(::truncate(data_path().c_str(), 4499), 0); }},
      {"data too long", [&] { ASSERT_EQ(::truncate(data_path().c_str(), 4501), 0); }},
      {"data a directory",
       [&] {
         ::unlink(data_path().c_str());
         make_directories(data_path() + ".elsewhere");
         make_link(data_path() + ".elsewhere/none", data_path());
       }},
      {"leftovers of a crash",
       [&] {
         ::unlink(map_path().c_str());
         write_file(map_path() + ".new", std::string(100'000, 'x'));
         write_file(data_path() + ".new", std::string(100'000, 'x'));
       }},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.what);
    ASSERT_THAT(StoreFixture::fill(Env::posix(), *open(key_)), is_ok());
    row.damage();
    const auto file = open(key_);
    ASSERT_NE(file, nullptr);
    EXPECT_EQ(file->marked_count(), 0U);
    EXPECT_EQ(StoreFixture::bytes_of(file->fd()), std::string(key_.size_bytes, '\0'));
    EXPECT_TRUE(file->is_current());
    EXPECT_FALSE(StoreFixture::exists(map_path() + ".new"));
    EXPECT_FALSE(StoreFixture::exists(data_path() + ".new"));
  }
}

TEST_F(FillingFileTest, ReadingWhatIsThereFillsNoHoleAfterItWithZeros) {
  constexpr uint64_t kMade = uint64_t{1} << 20U;
  const auto file = open(StoreFixture::key(0, 1, 8 * kMade));
  constexpr uint64_t kWritten = kMade - kPage;  // a header follows, and headers are written at the end
  std::vector<std::byte> bytes(kWritten, std::byte{7});
  ASSERT_THAT(Env::posix().write_at(file->fd(), bytes, 0), is_ok());
  const std::span<std::byte> piece = std::span(bytes).first(uint64_t{128} << 10U);
  for (uint64_t offset = 0; offset < kMade; offset += piece.size()) {  // as cat reads
    ASSERT_THAT(Env::posix().read_at(file->fd(), piece, offset), is_ok());
  }
  EXPECT_EQ(pages_in_memory(file->fd(), ByteRange{0, kWritten}), kWritten / kPage);
  EXPECT_EQ(pages_in_memory(file->fd(), ByteRange{kMade, 7 * kMade}), 0U);
}

TEST_F(FillingFileTest, AWholeFileIsReadAheadOfWhoeverReadsItThrough) {
  constexpr uint64_t kSize = uint64_t{8} << 20U;
  constexpr uint64_t kRead = uint64_t{1} << 20U;
  const auto file = open(StoreFixture::key(0, 1, kSize));
  std::vector<std::byte> bytes(kSize, std::byte{7});
  ASSERT_THAT(Env::posix().write_at(file->fd(), bytes, 0), is_ok());
  ASSERT_THAT(Env::posix().sync(file->fd()), is_ok());
  ASSERT_EQ(::posix_fadvise(file->fd(), 0, 0, POSIX_FADV_DONTNEED), 0);
  file->expect_reading_through();
  const std::span<std::byte> piece = std::span(bytes).first(uint64_t{128} << 10U);
  for (uint64_t offset = 0; offset < kRead; offset += piece.size()) {
    ASSERT_THAT(Env::posix().read_at(file->fd(), piece, offset), is_ok());
  }
  size_t ahead = 0;
  for (int i = 0; i < 500 && ahead == 0; ++i) {  // it is read in the background
    std::this_thread::sleep_for(milliseconds(10));
    ahead = pages_in_memory(file->fd(), ByteRange{kRead, kSize - kRead});
  }
  EXPECT_GT(ahead, 0U);
}

TEST_F(FillingFileTest, KnowsWhenItsNamesAreGone) {
  for (const std::string& path : {data_path(), map_path()}) {
    const auto file = open(key_);
    EXPECT_TRUE(file->is_current());
    ASSERT_THAT(Env::posix().remove(path), is_ok());
    EXPECT_FALSE(file->is_current());
    write_file(path, "another");
    EXPECT_FALSE(file->is_current());
    ASSERT_THAT(file->mark(0, {}), is_ok());  // still works, on its own
    EXPECT_TRUE(file->mark_of(0).has_value());
  }
}

TEST_F(FillingFileTest, IsLeasedWhileItLives) {
  auto file = open(key_);
  EXPECT_FALSE(RemovalLock::try_acquire(Env::posix(), data_path())->has_value());
  file.reset();
  EXPECT_TRUE(RemovalLock::try_acquire(Env::posix(), data_path())->has_value());
}

TEST_F(FillingFileTest, TileLocksExcludeOtherProcessesUntilPatienceEnds) {
  const auto mine = open(key_);
  const auto theirs = open(key_);
  EXPECT_TRUE(mine->lock_tile(1, milliseconds(0)));
  EXPECT_TRUE(theirs->lock_tile(2, milliseconds(0)));
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(theirs->lock_tile(1, milliseconds(30)));
  EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(30));
  mine->unlock_tile(1);
  EXPECT_TRUE(theirs->lock_tile(1, milliseconds(0)));
}

TEST_F(FillingFileTest, TheTileLockOfAKilledProcessIsFree) {
  const auto file = open(key_);
  const pid_t child = start_child([&] {
    const auto theirs = FillingFile::open(Env::posix(), directory_, key_);
    if (!(*theirs)->lock_tile(0, milliseconds(0))) {
      return 1;
    }
    return (*theirs)->mark(4, {}).has_value() ? ::pause() : 2;
  });
  while (!file->mark_of(4).has_value()) {
    ::usleep(500);
  }
  EXPECT_FALSE(file->lock_tile(0, milliseconds(5)));
  ::kill(child, SIGKILL);
  EXPECT_EQ(wait_for_child(child), 128 + SIGKILL);
  EXPECT_TRUE(file->lock_tile(0, milliseconds(0)));
}

TEST_F(FillingFileTest, RefusesKeysThatCannotBeFiles) {
  FillingKey odd = key_;
  odd.file = "../quantized_model_x";
  EXPECT_EQ(FillingFile::open(Env::posix(), directory_, odd).error().kind, ErrorKind::kInvalidArgument);
  FillingKey huge = key_;
  huge.size_bytes = uint64_t{1} << 63U;
  EXPECT_EQ(FillingFile::open(Env::posix(), directory_, huge).error().kind, ErrorKind::kInvalidArgument);
}

TEST_F(FillingFileTest, WithoutRoomForItsMapNoFileBeginsAndNothingStays) {
  FakeEnv env;
  env.fail_all(EnvCall::kAllocate, ENOSPC);
  EXPECT_THAT(FillingFile::open(env, directory_, key_), fails_with(ErrorKind::kNoSpace, {key_.file}));
  EXPECT_EQ(names(), std::vector<std::string>{"lock"});
  env.heal();
  EXPECT_THAT(FillingFile::open(env, directory_, key_), is_ok());
}

// As on some network filesystems.
TEST_F(FillingFileTest, WithoutByteLocksEachProcessGoesOnAsIfAlone) {
  for (const int sys_errno : {ENOLCK, EINVAL}) {
    FakeEnv env;
    env.fail_all(EnvCall::kLockByte, sys_errno);
    const auto file = *FillingFile::open(env, directory_, key_);
    EXPECT_FALSE(file->lock_tile(1, std::chrono::hours(1))) << "as if another process had it, and kept it";
    EXPECT_EQ(env.count(EnvCall::kSleep), 0U) << "but waiting for it would be in vain";
    EXPECT_TRUE(file->try_lock_seal()) << "or nothing would ever be sealed";
    file->unlock_seal();
    EXPECT_THAT(StoreFixture::fill(env, *file), is_ok());
    EXPECT_EQ(file->marked_count(), key_.tile_count);
  }
}

TEST_F(FillingFileTest, ATileThatIsNotLetGoOfIsWaitedForAsLongAsWasSaid) {
  FakeEnv env;
  env.set_time(0);
  const auto theirs = open(key_);
  const auto mine = *FillingFile::open(env, directory_, key_);
  ASSERT_TRUE(theirs->lock_tile(1, milliseconds(0)));
  const int64_t begun_ns = env.monotonic_ns();
  EXPECT_FALSE(mine->lock_tile(1, std::chrono::seconds(10)));
  EXPECT_GE(env.monotonic_ns() - begun_ns, 10'000'000'000);
  EXPECT_LT(env.now_ns(), 10'010'000'000) << "of which it slept";
}

TEST_F(FillingFileTest, AFailedStartLeavesNothingAndTheNextWorks) {
  for (const int sys_errno : {ENOSPC, EIO, EMFILE}) {
    for (const EnvCall call :
         {EnvCall::kOpen, EnvCall::kTruncate, EnvCall::kAllocate, EnvCall::kWriteAt, EnvCall::kRename, EnvCall::kRemove,
          EnvCall::kStat, EnvCall::kReadAt, EnvCall::kLock, EnvCall::kUnlock, EnvCall::kAdvise}) {
      for (uint64_t nth = 1;; ++nth) {
        SCOPED_TRACE(testing::Message() << "errno " << sys_errno << " call " << static_cast<int>(call) << " #" << nth);
        FakeEnv env;
        const uint64_t before = env.count(call);
        env.fail(call, nth, sys_errno);
        const auto file = FillingFile::open(env, directory_, key_);
        const bool reached = env.count(call) - before >= nth;
        if (!file.has_value()) {
          EXPECT_EQ(file.error().sys_errno, sys_errno);
          EXPECT_FALSE(StoreFixture::exists(map_path()) && StoreFixture::exists(data_path())) << "half made, but whole";
        }
        const auto again = open(key_);
        ASSERT_NE(again, nullptr);
        EXPECT_EQ(StoreFixture::fill(Env::posix(), *again), key_.tile_count);
        EXPECT_EQ(StoreFixture::bytes_of(again->fd()), StoreFixture::content(key_));
        ASSERT_THAT(Env::posix().remove(map_path()), is_ok());
        ASSERT_THAT(Env::posix().remove(data_path()), is_ok());
        if (!reached) {
          EXPECT_THAT(file, is_ok());
          break;
        }
      }
    }
  }
}

}  // namespace
}  // namespace qcache

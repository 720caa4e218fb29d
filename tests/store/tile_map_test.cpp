#include "core/store/tile_map.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <functional>
#include <thread>
#include <vector>

#include "tests/store/store_fixture.h"
#include "tests/support/fake_env.h"
#include "tests/support/result_matchers.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

class TileMapTest : public testing::Test {
 protected:
  // Open until the test ends, as a map asks.
  int open() { return open_.emplace_back(std::move(*Env::posix().open(path_, O_RDWR | O_CREAT, 0600))).get(); }
  std::unique_ptr<TileMap> make(const FillingKey& key, Env& env = Env::posix()) {
    const int fd = open();
    EXPECT_THAT(TileMap::format(Env::posix(), fd, key), is_ok());
    return std::move(*TileMap::open(env, fd));
  }

  TempDir dir_;
  const std::string path_ = dir_ / "x.map";
  std::vector<UniqueFd> open_;
};

TEST_F(TileMapTest, AllWhoHaveAFileOpenSeeAMarkAtOnce) {
  const FillingKey key = StoreFixture::key();
  const auto one = make(key);
  const auto other = std::move(*TileMap::open(Env::posix(), open()));
  EXPECT_EQ(other->key().virtual_path, key.virtual_path);
  EXPECT_TRUE(other->key().makes_same_bytes(key));
  EXPECT_EQ(other->mark_of(3), std::nullopt);

  TileMark mark = StoreFixture::right_mark(key, 3);
  mark.crc = {{1, 2, 3, 4, 5, 0xffffffff}};
  ASSERT_THAT(one->mark(3, mark), is_ok());
  ASSERT_TRUE(other->mark_of(3).has_value());
  EXPECT_EQ(other->mark_of(3)->digest, mark.digest);
  EXPECT_EQ(other->mark_of(3)->crc, mark.crc);
  EXPECT_EQ(other->mark_of(2), std::nullopt);
  EXPECT_EQ(other->mark_of(4), std::nullopt);
  EXPECT_EQ(other->marked_count(), 1U);

  ASSERT_THAT(other->mark(3, {.digest = mark.digest, .crc = std::nullopt}), is_ok());
  EXPECT_EQ(one->mark_of(3)->digest, mark.digest);
  EXPECT_EQ(one->mark_of(3)->crc, std::nullopt);
  ASSERT_THAT(other->mark(3, {.digest = std::nullopt, .crc = mark.crc}), is_ok());
  EXPECT_EQ(one->mark_of(3)->digest, std::nullopt);
  EXPECT_EQ(one->mark_of(3)->crc, mark.crc);
  ASSERT_THAT(other->unmark(3), is_ok());
  EXPECT_EQ(one->mark_of(3), std::nullopt);
  EXPECT_EQ(one->marked_count(), 0U);
}

TEST_F(TileMapTest, SummaryCountsMarksWithoutMapping) {
  const FillingKey key = StoreFixture::key(0, 1, 10'000 * StoreFixture::kTileBytes);
  const auto map = make(key);
  for (uint32_t tile = 0; tile < key.tile_count; tile += 7) {
    ASSERT_THAT(map->mark(tile, {}), is_ok());
  }
  const auto summary = TileMap::summarize(Env::posix(), open());
  ASSERT_THAT(summary, is_ok());
  EXPECT_EQ(summary->marked_count, 1429U);
  EXPECT_EQ(summary->key.size_bytes, key.size_bytes);
}

TEST_F(TileMapTest, HasNoHolesSoThatMarkingInPlaceCannotFailLater) {
  make(StoreFixture::key(0, 1, 50'000 * StoreFixture::kTileBytes));
  const auto stat = Env::posix().stat(path_);
  ASSERT_THAT(stat, is_ok());
  EXPECT_GE(stat->allocated_bytes, stat->size_bytes);
}

TEST_F(TileMapTest, RefusesDamagedFiles) {
  make(StoreFixture::key());
  const std::string good = read_file(path_);
  const auto refused = [&](const std::string& bytes) {
    write_file(path_, bytes);
    const auto map = TileMap::open(Env::posix(), open());
    const auto summary = TileMap::summarize(Env::posix(), open());
    return !map.has_value() && map.error().kind == ErrorKind::kCorrupt && !summary.has_value();
  };
  EXPECT_FALSE(refused(good));
  EXPECT_TRUE(refused(""));
  EXPECT_TRUE(refused(good.substr(0, good.size() - 1)));
  EXPECT_TRUE(refused(good + '\0'));
  EXPECT_TRUE(refused(std::string(good.size(), '\0')));
  for (const size_t at : {0U, 9U, 17U, 21U, 25U, 40U, 100U, 400U, 3400U}) {
    std::string changed = good;
    changed[at] = static_cast<char>(changed[at] + 1);
    EXPECT_TRUE(refused(changed)) << at;
  }
}

TEST_F(TileMapTest, DamagedEntriesCountAsNotMade) {
  const FillingKey key = StoreFixture::key();
  ASSERT_THAT(make(key)->mark(1, StoreFixture::right_mark(key, 1)), is_ok());
  const std::string good = read_file(path_);
  constexpr size_t kEntryOne = 4096 + 64;
  for (size_t at = 0; at < 64; ++at) {
    std::string bytes = good;
    bytes[kEntryOne + at] = static_cast<char>(bytes[kEntryOne + at] ^ 0x10);
    write_file(path_, bytes);
    const auto map = std::move(*TileMap::open(Env::posix(), open()));
    EXPECT_EQ(map->mark_of(1), std::nullopt) << at;
    EXPECT_EQ(TileMap::summarize(Env::posix(), open())->marked_count, 0U) << at;
    ASSERT_THAT(map->mark(1, StoreFixture::right_mark(key, 1)), is_ok());
    EXPECT_EQ(map->mark_of(1)->digest, StoreFixture::right_mark(key, 1).digest);
  }
}

// On a full disk that copies what it writes. Nothing may be stored into the mapping: that would be SIGBUS there.
TEST_F(TileMapTest, AMarkThatCannotBeWrittenIsAnErrorAndNeverAWrongMark) {
  const FillingKey key = StoreFixture::key();
  FakeEnv env;
  const auto map = make(key, env);
  const TileMark mark = StoreFixture::right_mark(key, 2);
  ASSERT_THAT(map->mark(2, {.digest = std::nullopt, .crc = mark.crc}), is_ok());
  for (const auto& change : std::initializer_list<std::function<Status()>>{
           [&] { return map->mark(3, mark); }, [&] { return map->add_digest(2, *mark.digest); },
           [&] { return map->unmark(2); }}) {
    env.fail(EnvCall::kWriteAt, 1, ENOSPC);
    EXPECT_THAT(change(), fails_with(ErrorKind::kNoSpace, {}));
    env.heal();
    EXPECT_EQ(map->mark_of(3), std::nullopt);
    if (const auto left = map->mark_of(2)) {
      EXPECT_EQ(left->crc, mark.crc);
      EXPECT_EQ(left->digest, std::nullopt);
    }
    ASSERT_THAT(map->mark(2, {.digest = std::nullopt, .crc = mark.crc}), is_ok());
  }
}

TEST_F(TileMapTest, RefusesNamesThatDoNotFit) {
  FillingKey key = StoreFixture::key();
  key.virtual_path.assign(FillingKey::kMaxVirtualPath + 1, 'x');
  const auto refused = TileMap::format(Env::posix(), open(), key);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().kind, ErrorKind::kInvalidArgument);
  key.virtual_path.pop_back();
  EXPECT_EQ(make(key)->key().virtual_path, key.virtual_path);
}

TEST_F(TileMapTest, ReadersNeverSeeHalfAMark) {
  const FillingKey key = StoreFixture::key();
  const auto map = make(key);
  std::atomic<bool> stop = false;
  const auto write = [&] {
    for (int i = 0; i < 50'000; ++i) {
      const auto value = static_cast<uint8_t>(i);
      TileMark mark;
      mark.digest.emplace().fill(value);
      mark.crc.emplace().fill(value);
      ASSERT_THAT(map->mark(0, mark), is_ok());
      if (i % 16 == 0) {
        ASSERT_THAT(map->unmark(0), is_ok());
      }
    }
    stop = true;
  };
  uint64_t seen = 0;
  uint64_t torn = 0;
  const auto read = [&] {
    for (bool last = false; !last;) {
      last = stop;  // before the look, so that the last look finds the last mark, which stays
      if (const auto mark = map->mark_of(0)) {
        ++seen;
        Sha256Digest whole;
        whole.fill(mark->digest->front());
        std::array<uint32_t, TileMark::kMaxStored> crc{};
        crc.fill(mark->digest->front());
        torn += mark->digest != whole || mark->crc != crc ? 1U : 0U;
      }
    }
  };
  std::thread writer(write);  // one: two that disagree may tear, see TileMap
  std::thread reader(read);
  writer.join();
  reader.join();
  EXPECT_EQ(torn, 0U);
  EXPECT_GT(seen, 0U);
}

// The sealer adds digests while readers need the CRCs.
TEST_F(TileMapTest, AddingADigestHidesTheMarkAtNoMoment) {
  const FillingKey key = StoreFixture::key();
  const auto map = make(key);
  const TileMark whole = StoreFixture::right_mark(key, 0);
  ASSERT_THAT(map->mark(0, {.digest = std::nullopt, .crc = whole.crc}), is_ok());
  std::atomic<bool> stop = false;
  uint64_t hidden = 0;
  uint64_t wrong = 0;
  std::thread reader([&] {
    while (!stop) {
      const auto mark = map->mark_of(0);
      hidden += !mark || mark->crc != whole.crc ? 1U : 0U;
      wrong += mark && mark->digest && mark->digest != whole.digest ? 1U : 0U;
    }
  });
  for (int i = 0; i < 200'000; ++i) {
    ASSERT_THAT(map->add_digest(0, *whole.digest), is_ok());
  }
  stop = true;
  reader.join();
  EXPECT_EQ(hidden, 0U);
  EXPECT_EQ(wrong, 0U);
  EXPECT_EQ(map->mark_of(0)->digest, whole.digest);
}

}  // namespace
}  // namespace qcache

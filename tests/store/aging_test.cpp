#include "core/store/aging.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <limits>

#include "tests/store/store_fixture.h"
#include "tests/support/fake_env.h"
#include "tests/support/result_matchers.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kDay = 86'400 * kSecond;
constexpr int64_t kNow = 1'000 * kDay;

struct Given {
  const char* file;
  int64_t days;  ///< since the last access
  uint64_t bytes;
  bool in_use = false;
  bool pinned = false;
  bool stale = false;
};

std::vector<std::string> victims(const std::vector<Given>& given, const AgingPolicy& policy) {
  std::vector<CacheEntry> entries;
  for (const Given& one : given) {
    CacheEntry entry;
    entry.record.file = one.file;
    entry.record.accessed_ns = kNow - one.days * kDay;
    entry.record.pinned = one.pinned;
    entry.in_use = one.in_use;
    entry.stale = one.stale;
    entry.disk_bytes = one.bytes;
    entries.push_back(entry);
  }
  std::vector<std::string> out;
  for (const Victim& victim : choose_victims(entries, policy, kNow)) {
    out.push_back(victim.entry.record.file + ": " + victim.reason);
  }
  return out;
}

TEST(Aging, ChoosesAsItsPolicySays) {
  using Texts = std::vector<std::string>;
  const std::vector<Given> abc = {{"a", 8, 100}, {"b", 7, 100}, {"c", 6, 100}};
  const auto week = std::chrono::hours(24 * 7);
  const struct {
    const char* what;
    std::vector<Given> given;
    AgingPolicy policy;
    Texts expected;
  } rows[] = {
      {"default: a week", abc, {}, {"a: not read for 8d", "b: not read for 7d"}},
      {"no limit", abc, {std::nullopt, std::nullopt}, {}},
      {"stale ones go whatever their age",
       {{"a", 0, 100, false, false, true}, {"b", 1, 100}},
       {std::nullopt, 100},
       {"a: made of an earlier state of its model"}},
      {"but not if they are in use or pinned",
       {{"a", 0, 100, true, false, true}, {"b", 0, 100, false, true, true}},
       {},
       {}},
      {"in use and pinned stay", {{"a", 8, 100, true, false}, {"b", 9, 100, false, true}}, {}, {}},
      {"the least recently used go first", abc, {std::nullopt, 200}, {"a: over the size limit of 200"}},
      {"just as large as allowed", abc, {std::nullopt, 300}, {}},
      {"expired files count as gone", abc, {week, 100}, {"a: not read for 8d", "b: not read for 7d"}},
      {"then the rest", abc, {week, 99}, {"a: not read for 8d", "b: not read for 7d", "c: over the size limit of 99"}},
      {"bytes in use count but stay",
       {{"a", 3, 500, true, false}, {"b", 2, 10}, {"c", 1, 10}},
       {std::nullopt, 505},
       {"b: over the size limit of 505", "c: over the size limit of 505"}},
      {"pinned bytes count but stay", {{"a", 3, 500, false, true}, {"b", 2, 10}}, {std::nullopt, 510}, {}},
      {"zero: all that is not in use",
       abc,
       {std::nullopt, 0},
       {"a: over the size limit of 0", "b: over the size limit of 0", "c: over the size limit of 0"}},
      {"read in the future: not old", {{"a", -5, 100}}, {std::chrono::seconds(0), std::nullopt}, {}},
      {"age zero: all", {{"a", 0, 100}}, {std::chrono::seconds(0), std::nullopt}, {"a: not read for 0s"}},
      {"nothing there", {}, {week, 0}, {}},
  };
  for (const auto& row : rows) {
    EXPECT_EQ(victims(row.given, row.policy), row.expected) << row.what;
  }
}

TEST(Aging, TimesOutsideAnyCalendarDoNoHarm) {
  CacheEntry entry;
  for (const int64_t time : {std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()}) {
    entry.record.accessed_ns = time;
    EXPECT_EQ(choose_victims({entry}, {}, kNow).size(), time < 0 ? 1U : 0U);
    EXPECT_LE(choose_victims({entry}, {}, std::numeric_limits<int64_t>::min()).size(), 1U);
    EXPECT_LE(choose_victims({entry}, {}, std::numeric_limits<int64_t>::max()).size(), 1U);
  }
}

class ApplyAgingTest : public testing::Test {
 protected:
  std::vector<std::string> apply(const AgingPolicy& policy, bool dry_run = false) {
    const auto report = apply_aging(*store_, policy, dry_run);
    EXPECT_THAT(report, is_ok());
    std::vector<std::string> files;
    for (const Victim& victim : report->dropped) {
      files.push_back(victim.entry.record.file);
    }
    std::sort(files.begin(), files.end());
    report_ = *report;
    return files;
  }
  SealedFile seal(uint32_t number) {
    return std::move(*StoreFixture::ensure_sealed(*store_, StoreFixture::key(number)));
  }
  std::string sealed_path(uint32_t number) { return store_->directory().sealed_path(StoreFixture::key(number).file); }
  static std::string file(uint32_t number) { return StoreFixture::key(number).file; }

  StoreFixture fixture_;
  FakeEnv env_;
  std::shared_ptr<Store> store_ = fixture_.open(env_);
  AgingReport report_;
};

TEST_F(ApplyAgingTest, DropsWhatExpiredAndTellsWhatItFreed) {
  seal(0);
  seal(1);
  env_.set_time(kNow);
  ASSERT_THAT(store_->catalog().touch(std::vector<AccessUpdate>{{file(1), kNow - kDay, 1}}), is_ok());
  const uint64_t each = Env::posix().stat(sealed_path(0))->allocated_bytes;
  EXPECT_EQ(apply({}, /*dry_run=*/true), std::vector{file(0)});
  EXPECT_TRUE(StoreFixture::exists(sealed_path(0)));
  EXPECT_EQ(apply({}), std::vector{file(0)});
  EXPECT_EQ(report_.bytes, each);
  EXPECT_EQ(report_.kept_bytes, each);
  EXPECT_FALSE(StoreFixture::exists(sealed_path(0)));
  EXPECT_TRUE(StoreFixture::exists(sealed_path(1)));
  EXPECT_EQ(*store_->catalog().find(file(0)), std::nullopt);
  EXPECT_EQ(apply({}), std::vector<std::string>());
}

TEST_F(ApplyAgingTest, OpenAndPinnedFilesStayWhateverTheirAge) {
  auto open = std::make_unique<SealedFile>(seal(0));
  seal(1);
  auto filling = *FillingFile::open(env_, store_->directory(), StoreFixture::key(2));
  ASSERT_THAT(store_->catalog().set_pinned(file(1), true), is_ok());
  env_.set_time(kNow);
  const AgingPolicy all{std::chrono::seconds(0), 0};
  env_.set_time(Env::posix().now_ns() + kDay);
  EXPECT_EQ(apply(all), std::vector<std::string>());
  EXPECT_EQ(report_.bytes, 0U);
  open.reset();
  EXPECT_EQ(apply(all), std::vector{file(0)});
  filling.reset();
  EXPECT_EQ(apply(all), std::vector{file(2)});
  ASSERT_THAT(store_->catalog().set_pinned(file(1), false), is_ok());
  EXPECT_EQ(apply(all), std::vector{file(1)});
}

TEST_F(ApplyAgingTest, WhoeverHoldsAFileOpenUsesItUntilThen) {
  SealedFile open = seal(0);
  const pid_t heir = start_child([] { return ::pause(); });
  open.fd.reset();
  env_.set_time(kNow);
  EXPECT_EQ(apply({}), std::vector<std::string>());
  ::kill(heir, SIGKILL);
  (void)wait_for_child(heir);
  EXPECT_EQ(apply({}), std::vector<std::string>()) << "its age counts from the last look at which it was in use";
  env_.set_time(kNow + 7 * kDay - 1);
  EXPECT_EQ(apply({}), std::vector<std::string>());
  env_.set_time(kNow + 7 * kDay);
  EXPECT_EQ(apply({}), std::vector{file(0)});
}

TEST_F(ApplyAgingTest, AFileJustSealedIsInUseWhileItsMakerReadsIt) {
  auto filling = *FillingFile::open(env_, store_->directory(), StoreFixture::key(0));
  ASSERT_THAT(StoreFixture::fill(env_, *filling), is_ok());
  ASSERT_THAT(store_->seal(*filling, StoreFixture::draft(filling->key())), is_ok());
  env_.set_time(kNow);
  EXPECT_EQ(apply({}), std::vector<std::string>());
  filling.reset();
  env_.set_time(kNow + 7 * kDay);
  EXPECT_EQ(apply({}), std::vector{file(0)});
}

TEST_F(ApplyAgingTest, AFileReadAfterTheChoiceStays) {
  seal(0);
  env_.set_time(kNow);
  const Record seen = **store_->catalog().find(file(0));
  ASSERT_THAT(store_->catalog().touch(std::vector<AccessUpdate>{{file(0), kNow, 1}}), is_ok());
  EXPECT_EQ(*store_->drop_sealed(seen, "old", WhenInUse::kKeep), std::nullopt);
  EXPECT_TRUE(StoreFixture::exists(sealed_path(0)));
}

TEST_F(ApplyAgingTest, FillingFilesAgeByTheTimeOfTheirMap) {
  { const auto filling = *FillingFile::open(env_, store_->directory(), StoreFixture::key(0)); }
  set_mtime(store_->directory().map_path(file(0)), kNow - 6 * kDay);
  env_.set_time(kNow);
  EXPECT_EQ(apply({}), std::vector<std::string>());
  set_mtime(store_->directory().map_path(file(0)), kNow - 7 * kDay);
  EXPECT_EQ(apply({}), std::vector{file(0)});
  EXPECT_FALSE(StoreFixture::exists(store_->directory().filling_path(file(0))));
  EXPECT_FALSE(StoreFixture::exists(store_->directory().map_path(file(0))));
}

TEST_F(ApplyAgingTest, OneFileThatCannotBeDroppedDoesNotKeepTheOthers) {
  seal(0);
  seal(1);
  env_.set_time(kNow);
  env_.fail_all(EnvCall::kRemove, EIO, file(0));
  EXPECT_EQ(apply({}), std::vector{file(1)});
  env_.heal();
  EXPECT_EQ(apply({}), std::vector{file(0)});
}

TEST_F(ApplyAgingTest, RemovesWhatCrashesLeftAndNothingElse) {
  SealedFile good = seal(0);
  good.fd.reset();
  { const auto filling = *FillingFile::open(env_, store_->directory(), StoreFixture::key(1)); }
  seal(2);
  ASSERT_THAT(env_.remove(sealed_path(2)), is_ok());  // a record without a file
  const CacheDirectory& directory = store_->directory();
  write_file(sealed_path(3), "no record");
  write_file(directory.map_path(file(4)), "half a pair");
  write_file(directory.filling_path(file(5)), "half a pair");
  write_file(directory.map_path(file(6)), "broken");
  write_file(directory.filling_path(file(6)), "whole, but for the map");
  write_file(directory.filling_path(file(7)) + ".new", "temporary");
  write_file(directory.kept_map_path(file(8)), "the map of no file");
  write_file(directory.sealed_path("notes.txt"), "not ours");
  write_file(directory.filling_directory() + "/notes.txt", "not ours");

  const AgingPolicy never{std::nullopt, std::nullopt};
  std::vector<std::string> expected = {file(2), file(3), file(4), file(5), file(6), file(7) + ".new", file(8)};
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(apply(never, /*dry_run=*/true), expected);
  EXPECT_TRUE(StoreFixture::exists(sealed_path(3)));
  EXPECT_EQ(apply(never), expected);
  EXPECT_EQ(apply(never), std::vector<std::string>());
  auto names = *env_.list(directory.filling_directory());
  std::sort(names.begin(), names.end());
  EXPECT_EQ(names, (std::vector<std::string>{"lock", "notes.txt", file(1), file(1) + ".map"}));
  EXPECT_TRUE(StoreFixture::exists(sealed_path(0)));
  EXPECT_TRUE(StoreFixture::exists(directory.sealed_path("notes.txt")));
  EXPECT_TRUE(StoreFixture::exists(directory.kept_map_path(file(0))));
  EXPECT_FALSE(StoreFixture::exists(directory.kept_map_path(file(2))));
  EXPECT_FALSE(StoreFixture::exists(directory.kept_map_path(file(8))));
  EXPECT_EQ(StoreFixture::unsoundness(*store_), "");
}

TEST_F(ApplyAgingTest, ALeftoverThatIsBeingReadStays) {
  SealedFile open = seal(0);
  ASSERT_THAT(store_->catalog().erase(file(0)), is_ok());
  ASSERT_THAT(env_.remove(store_->directory().kept_map_path(file(0))), is_ok());
  const AgingPolicy never{std::nullopt, std::nullopt};
  EXPECT_EQ(apply(never), std::vector<std::string>());
  open.fd.reset();
  EXPECT_EQ(apply(never), std::vector{file(0)});
}

}  // namespace
}  // namespace qcache

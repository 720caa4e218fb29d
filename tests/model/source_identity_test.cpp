#include "core/model/source_identity.h"

#include <gtest/gtest.h>

#include <set>

#include "core/model/source_model.h"
#include "tests/support/fake_env.h"
#include "tests/support/model_builder.h"
#include "tests/support/result_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kTwentyMs = 20'000'000;

FileStat stat_with(int64_t mtime_ns, int64_t ctime_ns) {
  FileStat stat;
  stat.mtime_ns = mtime_ns;
  stat.ctime_ns = ctime_ns;
  return stat;
}

class SourceIdentityTest : public testing::Test {
 protected:
  void SetUp() override { model_.config("{}").tensor("a", DType::kF32, {4}, TensorData::constant(1)).write(path_); }

  SourceIdentity capture(Env& env = Env::posix()) {
    const auto model = read_source_model(env, path_, "m");
    EXPECT_THAT(model, is_ok());
    return model->identity;
  }

  TempDir dir_;
  std::string path_ = dir_ / "m";
  ModelBuilder model_;
};

TEST(SettleTime, IsTheYoungerTimePlusTheClockGranularity) {
  EXPECT_EQ(settle_time_ns(stat_with(5 * kSecond + 1, 3 * kSecond)), 5 * kSecond + 1 + kTwentyMs);
  EXPECT_EQ(settle_time_ns(stat_with(5 * kSecond, 6 * kSecond + 7)), 6 * kSecond + 7 + kTwentyMs);
  EXPECT_EQ(settle_time_ns(stat_with(5 * kSecond, 6 * kSecond)), 8 * kSecond);  // no sub-second part
}

TEST_F(SourceIdentityTest, EveryFieldCounts) {
  SourceIdentity identity;
  identity.files.push_back({"/m/a", 2, 3, 4, 5, {6}});
  std::set<Sha256Digest> digests{identity.digest()};
  const auto expect_new = [&](const SourceIdentity& changed) { EXPECT_TRUE(digests.insert(changed.digest()).second); };
  const auto with = [&](auto change) {
    SourceIdentity changed = identity;
    change(changed.files[0]);
    expect_new(changed);
  };
  with([](SourceFileIdentity& file) { file.path = "/m/b"; });
  with([](SourceFileIdentity& file) { file.inode = 9; });
  with([](SourceFileIdentity& file) { file.size_bytes = 9; });
  with([](SourceFileIdentity& file) { file.mtime_ns = 9; });
  with([](SourceFileIdentity& file) { file.ctime_ns = 9; });
  with([](SourceFileIdentity& file) { file.header_digest[31] = 9; });
  SourceIdentity more = identity;
  more.files.push_back({"/m/config.json", 0, 0, 0, 0, {}});
  expect_new(more);
  expect_new({});

  SourceIdentity later = identity;
  later.captured_at_ns = 100;
  later.settled_at_ns = 200;
  EXPECT_EQ(later.digest(), identity.digest());
  // A fixed value: cache records hold it.
  EXPECT_EQ(to_hex(SourceIdentity{}.digest()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST_F(SourceIdentityTest, AnotherDeviceNumberIsNoChange) {
  const SourceFileIdentity weights = capture().files.front();
  FileStat now = *Env::posix().stat(weights.path);
  ++now.device;
  EXPECT_TRUE(weights.matches(now));
  ++now.inode;
  EXPECT_FALSE(weights.matches(now));
}

TEST_F(SourceIdentityTest, IsUnchangedUntilAFileIsTouched) {
  const SourceIdentity identity = capture();
  EXPECT_THAT(check_unchanged(Env::posix(), identity), is_ok());
  EXPECT_EQ(capture().digest(), identity.digest());
}

TEST_F(SourceIdentityTest, ChangesOfWeightsAndConfigShow) {
  const auto expect_changed = [&](const char* what, const std::function<void()>& change,
                                  const std::vector<std::string>& words) {
    SCOPED_TRACE(what);
    const SourceIdentity before = capture();
    change();
    EXPECT_THAT(check_unchanged(Env::posix(), before), fails_with(ErrorKind::kSourceChanged, words));
  };
  const std::string weights = path_ + "/model.safetensors";
  const std::string config = path_ + "/config.json";
  const std::string content = read_file(weights);
  expect_changed("grown", [&] { write_file(config, "{ }"); }, {config, "changed"});
  expect_changed("config gone", [&] { ASSERT_THAT(Env::posix().remove(config), is_ok()); }, {config, "gone"});
  expect_changed("config new", [&] { write_file(config, "{}"); }, {config, "new"});
  expect_changed("replaced by an equal file",
                 [&] {
                   write_file(path_ + "/copy", content);
                   ASSERT_THAT(Env::posix().rename(path_ + "/copy", weights), is_ok());
                 },
                 {weights, "changed"});
  expect_changed("touched", [&] { set_mtime(weights, kSecond); }, {weights, "changed"});
  expect_changed("vanished", [&] { ASSERT_THAT(Env::posix().remove(weights), is_ok()); }, {weights, "gone"});
}

TEST_F(SourceIdentityTest, AConfigThatComesOrGoesIsAnotherIdentity) {
  const Sha256Digest with = capture().digest();
  ASSERT_THAT(Env::posix().remove(path_ + "/config.json"), is_ok());
  const Sha256Digest without = capture().digest();
  EXPECT_NE(with, without);
  EXPECT_EQ(capture().digest(), without);
}

TEST_F(SourceIdentityTest, ARewriteOfSameSizeAndTimeShowsOnceSettled) {
  // The header is the same and the mtime is set back; only the ctime can tell.
  const std::string weights = path_ + "/model.safetensors";
  set_mtime(weights, 1000 * kSecond + 1);
  const SourceIdentity before = capture();
  while (Env::posix().now_ns() < before.settled_at_ns) {
    // The clock of the filesystem ticks within 20 ms.
  }
  ModelBuilder other;
  other.config("{}").tensor("a", DType::kF32, {4}, TensorData::constant(2)).write(path_);
  set_mtime(weights, 1000 * kSecond + 1);
  const SourceIdentity after = capture();
  EXPECT_EQ(after.files[0].header_digest, before.files[0].header_digest);
  EXPECT_EQ(after.files[0].mtime_ns, before.files[0].mtime_ns);
  EXPECT_EQ(after.files[0].size_bytes, before.files[0].size_bytes);
  EXPECT_THAT(check_unchanged(Env::posix(), before), fails_with(ErrorKind::kSourceChanged, {weights}));
}

TEST_F(SourceIdentityTest, IsSettledOnlyWhenTheClockHasPassedAllFiles) {
  FakeEnv env;
  const int64_t written_ns = capture().files[0].ctime_ns;
  int64_t newest_ns = 0;
  for (const SourceFileIdentity& file : capture().files) {
    newest_ns = std::max(newest_ns, file.ctime_ns);
  }
  env.set_time(written_ns);
  EXPECT_FALSE(capture(env).settled());
  EXPECT_EQ(capture(env).captured_at_ns, written_ns);
  EXPECT_EQ(capture(env).settled_at_ns, newest_ns + kTwentyMs);
  env.set_time(newest_ns + kTwentyMs - 1);
  EXPECT_FALSE(capture(env).settled());
  env.set_time(newest_ns + kTwentyMs);
  EXPECT_TRUE(capture(env).settled());
}

TEST_F(SourceIdentityTest, TheCaptureBeginsBeforeTheFirstStat) {
  FakeEnv env;
  env.set_time(10);
  env.before(EnvCall::kList, 1, [&] { env.set_time(1'000'000); });
  EXPECT_EQ(capture(env).captured_at_ns, 10);
}

TEST_F(SourceIdentityTest, AnMtimeInTheFutureDoesNotHoldItUpForEver) {
  const int64_t now = Env::posix().now_ns();
  set_mtime(path_ + "/model.safetensors", now + 3600 * kSecond);
  FakeEnv env;
  env.set_time(now + 10 * kSecond);
  EXPECT_TRUE(capture(env).settled());
}

TEST_F(SourceIdentityTest, AStateSeenForATickIsSettledWhateverTheClocksSay) {
  FakeEnv env;
  env.set_time(kSecond);  // the files are from the future
  const SourceIdentity first = capture(env);
  EXPECT_FALSE(first.settled());
  EXPECT_GT(first.settles_in_ns(env), 0);
  EXPECT_LE(first.settles_in_ns(env), kTwentyMs);
  env.advance(kTwentyMs);
  EXPECT_EQ(first.settles_in_ns(env), 0);
  SourceIdentity later = capture(env);
  EXPECT_FALSE(later.settled()) << "nobody has seen it before";
  later.go_on_from(first);
  EXPECT_TRUE(later.settled());

  write_file(path_ + "/config.json", "{ }");
  SourceIdentity changed = capture(env);
  changed.go_on_from(later);
  EXPECT_FALSE(changed.settled());
  set_mtime(path_ + "/config.json", 5 * kSecond);
  EXPECT_LE(capture(env).settles_in_ns(env), kTwentyMs) << "its ctime has a sub-second part";
}

TEST_F(SourceIdentityTest, AnErrorIsNeverUnchanged) {
  const SourceIdentity identity = capture();
  FakeEnv env;
  env.fail(EnvCall::kStat, 2, EIO);
  EXPECT_THAT(check_unchanged(env, identity), fails_with(ErrorKind::kIo, {"config.json"}));
}

}  // namespace
}  // namespace qcache

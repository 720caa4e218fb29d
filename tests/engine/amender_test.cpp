#include "core/engine/amender.h"

#include <gmock/gmock.h>

#include <atomic>

#include "tests/engine/artifact_reading.h"
#include "tests/store/store_fixture.h"
#include "tests/support/fake_env.h"
#include "tests/support/result_matchers.h"

namespace qcache {
namespace {

class AmenderTest : public testing::Test {
 protected:
  ~AmenderTest() override {
    idle_pool_.stop();
    pool_.stop();
  }

  Record sealed(uint32_t number) {
    const FillingKey key = StoreFixture::key(number);
    const auto filling = *store_->open_filling(key);
    EXPECT_THAT(StoreFixture::fill(env_, *filling), is_ok());
    TilePlaces places;
    for (uint32_t tile = 0; tile < key.tile_count; ++tile) {
      const uint64_t offset = tile * StoreFixture::kTileBytes;
      places.add(std::vector<ByteRange>{{offset, std::min(StoreFixture::kTileBytes, key.size_bytes - offset)}});
    }
    const auto hashed = store_->prepare_seal(*filling, places);
    EXPECT_THAT(hashed, is_ok());
    return **store_->commit_seal(*filling, StoreFixture::draft(key), *hashed);
  }
  Sha256Digest recorded(const Record& record) { return (*store_->catalog().find(record.file))->sha256; }
  static Sha256Digest right(uint32_t number) {
    const std::string content = StoreFixture::content(StoreFixture::key(number));
    return sha256(std::as_bytes(std::span(content)));
  }
  MeasureQuality measure() {
    return [this](int /*fd*/, const KeepGoing& /*keep_going*/) {
      ++measured_;
      return quality_;
    };
  }
  bool done() {
    return eventually([&] { return amender_.is_done(); });
  }

  StoreFixture fixture_;
  FakeEnv env_;
  std::shared_ptr<Store> store_ = fixture_.open(env_);
  WorkerPool pool_{1};
  WorkerPool idle_pool_{1};
  std::atomic<int> measured_{0};
  Result<std::vector<TensorQuality>> quality_ = std::vector<TensorQuality>{{"a.q_proj", 100, 1, 64}};
  Amender amender_{*store_, pool_, idle_pool_, [this](const Record& /*record*/) { return measure(); }};
};

TEST_F(AmenderTest, RecordsGetTheSha256AndTheQuality) {
  const Record one = sealed(1);
  const Record two = sealed(2);
  ASSERT_THAT(amender_.look(), is_ok());
  ASSERT_TRUE(done());
  EXPECT_EQ(recorded(one), right(1));
  EXPECT_EQ(recorded(two), right(2));
  EXPECT_EQ(store_->catalog().quality(one.file, one.contents()), quality_);
  EXPECT_TRUE(*store_->verify(**store_->catalog().find(one.file)));
  ASSERT_THAT(amender_.look(), is_ok());
  ASSERT_TRUE(done());
  EXPECT_EQ(measured_, 2) << "once for each";
}

TEST_F(AmenderTest, AFileThatWasDroppedAndMadeAgainIsHashedAgain) {
  for (int round = 0; round < 2; ++round) {
    const Record one = sealed(1);
    amender_.add(one, measure(), 0);
    ASSERT_TRUE(done());
    EXPECT_EQ(recorded(one), right(1)) << round;
    ASSERT_THAT(store_->drop(one.file, "a test"), is_ok());
  }
}

TEST_F(AmenderTest, AQualityThatCannotBeMeasuredKeepsNothingElse) {
  quality_ = fail(ErrorKind::kIo, "the source is gone");
  const Record one = sealed(1);
  ASSERT_THAT(amender_.look(), is_ok());
  ASSERT_TRUE(done());
  EXPECT_EQ(recorded(one), right(1));
}

TEST_F(AmenderTest, WhatIsDroppedMeanwhileIsLeftAlone) {
  const Record one = sealed(1);
  quality_ = std::vector<TensorQuality>();
  EXPECT_THAT(amend_record(*store_, one,
                           [&](const Record& record) {
                             EXPECT_THAT(store_->drop(record.file, "a test"), is_ok());
                             return measure();
                           },
                           {}),
              is_ok());
  EXPECT_EQ(*store_->catalog().find(one.file), std::nullopt);
  EXPECT_THAT(amend_record(*store_, one, [&](const Record& /*record*/) { return measure(); }, {}), is_ok())
      << "it is not there any more";
}

TEST_F(AmenderTest, ATouchedFileIsNotHashedBeforeItsTilesAreChecked) {
  const Record one = sealed(1);
  StoreFixture::make_writable(store_->directory().sealed_path(one.file));
  ASSERT_THAT(amender_.look(), is_ok());
  ASSERT_TRUE(done());
  EXPECT_EQ(recorded(one), Sha256Digest{});
  EXPECT_EQ(measured_, 0);
}

TEST_F(AmenderTest, WhatAStopKeepsFromBeingDoneIsDoneByTheNext) {
  const Record one = sealed(1);
  amender_.stop();
  ASSERT_THAT(amender_.look(), is_ok());
  EXPECT_TRUE(amender_.is_done());
  EXPECT_EQ(recorded(one), Sha256Digest{});
  Amender next(*store_, pool_, idle_pool_, [this](const Record& /*record*/) { return measure(); });
  ASSERT_THAT(next.look(), is_ok());
  ASSERT_TRUE(eventually([&] { return next.is_done(); }));
  EXPECT_EQ(recorded(one), right(1));
}

}  // namespace
}  // namespace qcache

// What the engine does with cached bytes that others have made, touched or damaged.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <utility>

#include "tests/engine/engine_fixture.h"
#include "tests/store/store_fixture.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

using testing::HasSubstr;

TEST_F(EngineTest, AFileThatAnotherProcessHasSealedIsNotWrittenTo) {
  Engine& first = start();
  FakeEnv other_env;
  EngineOptions options;
  options.roots = {dir_ / "models"};
  options.cache_directory = dir_ / "cache";
  const auto other = std::move(*Engine::start(other_env, options));
  const auto opened = other->open(name());
  ASSERT_TRUE(opened);
  ASSERT_TRUE(read_all());
  ASSERT_TRUE(sealed());
  const uint64_t writes = other_env.count(EnvCall::kWriteAt);
  ASSERT_TRUE(read(**opened, ByteRange{0, (*opened)->size_bytes()}));  // now it is complete there, too
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  other->stop();
  EXPECT_EQ(other_env.count(EnvCall::kWriteAt), writes);
  EXPECT_EQ(first.describe(name())->state, ArtifactState::kSealed);
}

TEST_F(EngineTest, AFileSealedWhileItIsOpenedIsNotMadeAgain) {
  Engine& engine = start();
  ASSERT_TRUE(read_all());
  ASSERT_TRUE(sealed());
  const uint64_t made = engine.stats().tiles_quantized;
  engine.stop();
  // What find_sealed() saw before: nothing.
  const auto store = *Store::open(env_, *CacheDirectory::open(env_, dir_ / "cache"));
  const Record record = store->catalog().list()->front();
  const FillingKey key{record.file, record.virtual_path, record.recipe, record.size_bytes, record.tile_count};
  EXPECT_EQ(*store->open_filling(key), nullptr);
  EXPECT_FALSE(env_.stat(store->directory().filling_path(record.file)));
  FillingKey other = key;
  other.recipe[0] = static_cast<uint8_t>(other.recipe[0] ^ 1U);
  EXPECT_NE(*store->open_filling(other), nullptr) << "of another recipe it is another file";
  EXPECT_EQ(made, tile_count());
}

TEST_F(EngineTest, AnOpenThatASealOvertakesGetsTheSealedFile) {
  Engine& engine = start();
  EngineOptions options;
  options.roots = {dir_ / "models"};
  options.cache_directory = dir_ / "cache";
  const auto other = std::move(*Engine::start(Env::posix(), options));
  bool overtaken = false;
  env_.before(
      EnvCall::kOpen, 1,
      [&] {
        const auto opened = other->open(name());
        overtaken = opened && read(**opened, ByteRange{0, (*opened)->size_bytes()}) && sealed();
      },
      "filling/lock");
  const auto opened = engine.open(name());
  EXPECT_TRUE(overtaken);
  ASSERT_TRUE(opened);
  EXPECT_GE((*opened)->complete_fd(), 0);
  EXPECT_EQ(engine.stats().opens_filling, 0U);
}

// A tile that a reader waited for is marked with its CRC only; its SHA-256 is computed over what lies on disk later.
TEST_F(EngineTest, AByteThatFlipsBetweenMakingAndSealingIsNeverSealed) {
  Engine& engine = start();
  const auto right = made_and_removed();
  {
    const auto opened = engine.open(name());
    ASSERT_TRUE(opened);
    constexpr uint64_t kInATile = 200'000;
    ASSERT_TRUE(read(**opened, ByteRange{kInATile, 1000}));
    flip_byte(engine.describe(name())->backing, kInATile);
    ASSERT_TRUE(engine.set_warm(name(), true));
    ASSERT_TRUE(reaches(ArtifactState::kAbsent)) << "it is dropped";
  }
  EXPECT_EQ(engine.stats().tiles_rejected, 1U);
  EXPECT_EQ(engine.errors()[0].error.kind, ErrorKind::kCorrupt);
  EXPECT_EQ(read_all(), right);
  EXPECT_TRUE(sealed());
}

TEST_F(EngineTest, ATileWhoseMarkTheFullDiskRefusesIsServedAllTheSame) {
  Engine& engine = start();
  const auto right = made_and_removed();
  const auto opened = engine.open(name());
  ASSERT_TRUE(opened);
  env_.fail_all(EnvCall::kWriteAt, ENOSPC, ".map");
  const auto got = read(**opened, ByteRange{200'000, 1000});
  ASSERT_TRUE(got);
  EXPECT_TRUE(std::equal(got->begin(), got->end(), right->begin() + 200'000));
  env_.heal();
  ASSERT_TRUE(engine.set_warm(name(), true));
  ASSERT_TRUE(sealed());
  EXPECT_EQ(read_all(), right);
}

TEST_F(EngineTest, ATouchedFileIsReadOnAFullDiskToItsLastTrailer) {
  start();
  const auto right = read_all();
  ASSERT_TRUE(right);
  ASSERT_TRUE(sealed());
  const std::string backing = engine_->describe(name())->backing;
  ASSERT_EQ(::chmod(backing.c_str(), 0600), 0);
  const auto opened = engine_->open(name());  // its marks have digests, and no CRCs yet
  ASSERT_TRUE(opened);
  env_.fail_all(EnvCall::kWriteAt, ENOSPC, "filling/");
  const auto got = read(**opened, ByteRange{0, right->size()});
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(*got, *right);
  env_.heal();
}

TEST_F(EngineTest, FlippedByteInASealedFileIsMadeAgain) {
  start();
  const auto right = read_all();
  ASSERT_TRUE(right);
  ASSERT_TRUE(sealed());
  const std::string backing = engine_->describe(name())->backing;
  engine_.reset();
  flip_byte(backing, 1'000'000);
  Engine& engine = start();
  EXPECT_EQ(read_all(), right);
  EXPECT_EQ(engine.stats().tiles_rejected, 1U);
  ASSERT_FALSE(engine.errors().empty());
  EXPECT_THAT(engine.errors()[0].error.message, HasSubstr("SHA-256"));
  EXPECT_TRUE(sealed());
}

TEST_F(EngineTest, FlippedByteInAHeaderOfASealedFileIsMadeAgain) {
  start();
  const auto right = read_all();
  ASSERT_TRUE(sealed());
  const std::string backing = engine_->describe(name())->backing;
  engine_.reset();
  flip_byte(backing, 70);
  start();
  EXPECT_EQ(read_all(), right);
  ASSERT_TRUE(sealed());
  EXPECT_EQ(read_all(), right) << "also from the sealed file";
}

TEST_F(EngineTest, TouchedBackingFileIsHashedNotTrusted) {
  start();
  const auto right = read_all();
  ASSERT_TRUE(sealed());
  const std::string backing = engine_->describe(name())->backing;
  engine_.reset();
  ASSERT_EQ(::utimensat(AT_FDCWD, backing.c_str(), nullptr, 0), 0);
  Engine& engine = start();
  EXPECT_EQ(read_all(), right);
  EXPECT_EQ(engine.stats().tiles_verified, tile_count());
  EXPECT_EQ(engine.stats().tiles_quantized, 0U);
  EXPECT_TRUE(sealed());
}

TEST_F(EngineTest, ChangedSourceIsMadeAnew) {
  Engine& engine = start();
  const auto old = read_all();
  ASSERT_TRUE(sealed());
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  ModelBuilder other;
  other.tensor("model.layers.0.self_attn.q_proj.weight", DType::kBF16, {2048, 2048}, TensorData::normal(99));
  other.write(dir_ / "models/m");
  EXPECT_NE(engine.describe(name())->state, ArtifactState::kSealed);
  const auto fresh = read_all();
  ASSERT_TRUE(fresh);
  EXPECT_NE(*fresh, *old);
  EXPECT_TRUE(sealed());
}

TEST_F(EngineTest, BadModelFailsAlone) {
  Engine& engine = start();
  std::filesystem::create_directories(dir_ / "models/broken");
  std::ofstream(dir_ / "models/broken/model.safetensors") << "garbage that is no header";
  const auto broken = engine.model("broken");
  ASSERT_FALSE(broken);
  EXPECT_EQ(broken.error().kind, ErrorKind::kInvalidModel);
  EXPECT_EQ(engine.errors()[0].subject, "broken");
  EXPECT_TRUE(read_all());
}

TEST_F(EngineTest, ACompleteFileThatIsDamagedIsDroppedAndMadeAnew) {
  start();
  const auto whole = read_all();
  ASSERT_TRUE(whole);
  std::string file;
  {
    env_.fail_all(EnvCall::kRename, ENOSPC, "filling/quantized");  // it stays complete
    const auto opened = engine_->open(name());
    ASSERT_TRUE(opened);
    ASSERT_TRUE(reaches(ArtifactState::kFailed) || reaches(ArtifactState::kComplete));
    file = engine_->describe(name())->backing;
  }
  engine_.reset();
  env_.heal();
  flip_byte(file, 200'000);
  start();
  EXPECT_EQ(read_all(), whole) << "the wrong tile comes from memory";
  EXPECT_FALSE(env_.stat(file)) << "its names are gone";
  EXPECT_EQ(read_all(), whole);
  EXPECT_TRUE(sealed());
}

}  // namespace
}  // namespace qcache

// A cache directory that was made by the build of 2026-12-01 (c0024eb): a pinned int8 checkpoint and the nf4 weights of
// a folder, both sealed, and an fp8 checkpoint of which one tile in four was made when the daemon was killed. It was
// copied since, so that no inode is the one that was sealed.

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <cstdlib>

#include "core/store/store.h"
#include "tests/support/result_matchers.h"
#include "tests/support/temp_dir.h"

namespace qcache {
namespace {

class OldCacheTest : public testing::Test {
 protected:
  OldCacheTest() {
    const std::string archive = std::string(QCACHE_STORE_TEST_DATA) + "/cache_2026_12_01.tar.gz";
    EXPECT_EQ(std::system(fmt::format("tar -xzf '{}' -C '{}'", archive, dir_.path()).c_str()), 0);
    auto directory = CacheDirectory::open(Env::posix(), dir_ / "cache");
    EXPECT_THAT(directory, is_ok());
    auto store = Store::open(Env::posix(), std::move(*directory));
    EXPECT_THAT(store, is_ok());
    store_ = std::move(*store);
  }

  [[nodiscard]] CacheEntry entry(const std::string& virtual_path) const {
    const auto entries = store_->entries();
    for (const CacheEntry& entry : *entries) {
      if (entry.record.virtual_path == virtual_path) {
        return entry;
      }
    }
    ADD_FAILURE() << "there is no " << virtual_path;
    return {};
  }

  TempDir dir_;
  std::shared_ptr<Store> store_;
};

TEST_F(OldCacheTest, AllOfItIsListedAndWhatPeopleSetIsKept) {
  EXPECT_EQ(store_->entries()->size(), 3U);
  const CacheEntry int8 = entry("m/int8/0.bin");
  EXPECT_TRUE(int8.sealed);
  EXPECT_TRUE(int8.record.pinned);
  EXPECT_EQ(int8.record.model_path, "/tmp/qold/models/m");
  const CacheEntry nf4 = entry("m/nf4/0/model.safetensors");
  EXPECT_TRUE(nf4.sealed);
  EXPECT_FALSE(nf4.record.pinned);
  const CacheEntry fp8 = entry("m/fp8/0.bin");
  EXPECT_FALSE(fp8.sealed);
  EXPECT_EQ(fp8.progress, 0.25);
}

TEST_F(OldCacheTest, CompleteFilesAreStillWhatTheirRecordsSay) {
  for (const char* const path : {"m/int8/0.bin", "m/nf4/0/model.safetensors"}) {
    const auto right = store_->verify(entry(path).record);
    ASSERT_THAT(right, is_ok()) << path;
    EXPECT_TRUE(*right) << path;
  }
}

TEST_F(OldCacheTest, ACompleteFileIsCheckedByItsTilesAndServedAgain) {
  const Record record = entry("m/int8/0.bin").record;
  SealedFile sealed;
  ASSERT_EQ(store_->find_sealed(record.file, record.recipe, sealed), SealedState::kSuspect);
  ASSERT_THAT(store_->demote(record.file), is_ok());
  const auto filling =
      store_->open_filling({record.file, record.virtual_path, record.recipe, record.size_bytes, record.tile_count});
  ASSERT_THAT(filling, is_ok());
  ASSERT_NE(*filling, nullptr);
  EXPECT_EQ((*filling)->marked_count(), record.tile_count);
  EXPECT_EQ(*store_->is_pinned(record.file, record.recipe), true);
  Record draft;
  draft.virtual_path = record.virtual_path;
  const auto again = store_->seal(**filling, draft);
  ASSERT_THAT(again, is_ok());
  ASSERT_TRUE(*again);
  EXPECT_EQ((*again)->sha256, record.sha256);
  EXPECT_TRUE((*again)->pinned);
  EXPECT_EQ(store_->find_sealed(record.file, record.recipe, sealed), SealedState::kTrusted);
}

TEST_F(OldCacheTest, AFileThatWasBeingMadeIsGoneOnWith) {
  const Record record = entry("m/fp8/0.bin").record;
  const auto filling =
      store_->open_filling({record.file, record.virtual_path, record.recipe, record.size_bytes, record.tile_count});
  ASSERT_THAT(filling, is_ok());
  ASSERT_NE(*filling, nullptr);
  EXPECT_EQ((*filling)->marked_count(), 1U);
  EXPECT_EQ(record.tile_count, 4U);
}

}  // namespace
}  // namespace qcache

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>

#include "core/qcache.h"
#include "core/store/cache_directory.h"
#include "tests/store/store_fixture.h"
#include "tests/support/result_matchers.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

class PublicInterfaceTest : public testing::Test {
 protected:
  void seal(uint32_t number) {
    ASSERT_THAT(StoreFixture::ensure_sealed(*fixture_.open(), StoreFixture::key(number)), is_ok());
  }
  std::string sealed_path(uint32_t number) { return fixture_.path() + '/' + file(number); }
  static std::string file(uint32_t number) { return StoreFixture::key(number).file; }
  void damage(uint32_t number) { flip_byte(sealed_path(number), 77); }

  StoreFixture fixture_;
  TempDir dir_;
};

TEST_F(PublicInterfaceTest, CachePathIsThatOfTheMount) {
  make_directories(dir_ / "model");
  make_link("model", dir_ / "link");
  ::setenv("QWEN_CACHE", dir_.path().c_str(), 1);
  const std::string expected = dir_.path() + "/" + artifact_file_name(dir_ / "model", "int8", 4);
  EXPECT_EQ(get_quantized_model_cache_path(dir_ / "model", "int8", 4), expected);
  EXPECT_EQ(get_quantized_model_cache_path(dir_ / "link", "INT8", 4), expected);
  EXPECT_THAT(get_quantized_model_cache_path(dir_ / "model", "int7", 0),
              fails_with(ErrorKind::kInvalidArgument, {"int7"}));
  EXPECT_THAT(get_quantized_model_cache_path(dir_ / "none", "int8", 0), fails_with(ErrorKind::kNotFound, {"none"}));
  ::unsetenv("QWEN_CACHE");
}

TEST_F(PublicInterfaceTest, ValidatesAgainstTheRecord) {
  seal(0);
  EXPECT_EQ(validate_cache_integrity(sealed_path(0)), true);
  damage(0);
  EXPECT_EQ(validate_cache_integrity(sealed_path(0)), false);
  write_file(sealed_path(1), "no record");
  EXPECT_EQ(validate_cache_integrity(sealed_path(1)), false);
  write_file(dir_ / "quantized_model_x.bin", "no cache directory");
  EXPECT_EQ(validate_cache_integrity(dir_ / "quantized_model_x.bin"), false);
  write_file(dir_ / "any.bin", "not even the name");
  EXPECT_EQ(validate_cache_integrity(dir_ / "any.bin"), false);
  EXPECT_THAT(validate_cache_integrity(sealed_path(2)), fails_with(ErrorKind::kNotFound, {file(2)}));
}

TEST_F(PublicInterfaceTest, TellsWhatTheDirectoryHolds) {
  seal(0);
  const auto store = fixture_.open();
  const auto filling = *FillingFile::open(store->env(), store->directory(), StoreFixture::key(1));
  const auto info = get_cache_info(fixture_.path());
  ASSERT_THAT(info, is_ok());
  EXPECT_EQ(info->cache_dir, fixture_.path());
  EXPECT_EQ(info->file_count, 2U);
  EXPECT_EQ(info->total_size_bytes, store->totals()->disk_bytes);
  EXPECT_GE(info->total_size_bytes, 4500U);
  EXPECT_GT(info->free_bytes, 0U);
  EXPECT_THAT(get_cache_info(dir_ / "none"), fails_with(ErrorKind::kNotFound, {"none"}));
}

TEST_F(PublicInterfaceTest, ClearsWhatWasNotReadForDays) {
  seal(0);  // "read" in 1970
  seal(1);
  const auto store = fixture_.open();
  ASSERT_THAT(store->catalog().touch(std::vector<AccessUpdate>{{file(1), Env::posix().now_ns(), 1}}), is_ok());
  const auto report = clear_old_cache_files(fixture_.path());
  ASSERT_THAT(report, is_ok());
  EXPECT_EQ(report->removed, std::vector{file(0)});
  EXPECT_GE(report->freed_bytes, 4500U);
  EXPECT_FALSE(StoreFixture::exists(sealed_path(0)));
  EXPECT_TRUE(StoreFixture::exists(sealed_path(1)));
}

TEST_F(PublicInterfaceTest, CleansUpWhatDiffersFromItsRecord) {
  for (uint32_t number = 0; number < 3; ++number) {
    seal(number);
  }
  damage(1);
  ASSERT_THAT(Env::posix().remove(sealed_path(2)), is_ok());
  const auto report = cleanup_corrupted_cache(fixture_.path());
  ASSERT_THAT(report, is_ok());
  std::vector<std::string> removed = report->removed;
  std::vector<std::string> expected = {file(1), file(2)};
  std::sort(removed.begin(), removed.end());
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(removed, expected);
  EXPECT_TRUE(StoreFixture::exists(sealed_path(0)));
  EXPECT_FALSE(StoreFixture::exists(sealed_path(1)));
  EXPECT_EQ(fixture_.open()->catalog().list()->size(), 1U);
  EXPECT_EQ(cleanup_corrupted_cache(fixture_.path())->removed.size(), 0U);
}

}  // namespace
}  // namespace qcache

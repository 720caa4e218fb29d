#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "tests/store/store_fixture.h"
#include "tests/support/result_matchers.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

// Complete files whose records are lost, with the catalog or without it.
class StoreRecoveryTest : public testing::Test {
 protected:
  // Seals the first `count` files.
  void seal(uint32_t count) {
    const auto store = fixture_.open();
    for (uint32_t number = 0; number < count; ++number) {
      ASSERT_THAT(StoreFixture::ensure_sealed(*store, StoreFixture::key(number)), is_ok());
    }
  }
  std::string path(const std::string& name) const { return fixture_.path() + '/' + name; }
  // How many tiles had to be made again until the file is sealed, with the right bytes.
  static Result<uint32_t> serve(Store& store, const FillingKey& key) {
    SealedFile found;
    QCACHE_TRY_ASSIGN(const SealedState state, store.find_sealed(key.file, key.recipe, found));
    uint32_t made = 0;
    if (state != SealedState::kTrusted) {
      QCACHE_TRY_ASSIGN(const auto filling, store.open_filling(key));
      QCACHE_TRY_ASSIGN(made, StoreFixture::fill(store.env(), *filling));
      QCACHE_TRY(store.seal(*filling, StoreFixture::draft(key)));
      QCACHE_TRY(store.find_sealed(key.file, key.recipe, found));
    }
    EXPECT_EQ(StoreFixture::bytes_of(found.fd.get()), StoreFixture::content(key));
    return made;
  }

  StoreFixture fixture_;
};

TEST_F(StoreRecoveryTest, ALostOrDamagedCatalogCostsNoCompleteFile) {
  const struct {
    const char* what;
    std::function<void(const std::string&, const std::string&)> harm;  // index, and its data file as of two files less
  } rows[] = {
      {"gone", [](const std::string& index, const std::string&) { std::filesystem::remove_all(index); }},
      {"empty", [](const std::string& index, const std::string&) { write_file(index + "/data.mdb", ""); }},
      {"overwritten",
       [](const std::string& index, const std::string&) { write_file(index + "/data.mdb", std::string(50'000, 'x')); }},
      {"of an earlier time",
       [](const std::string& index, const std::string& old) { write_file(index + "/data.mdb", old); }},
      {"half of an earlier time",
       [](const std::string& index, const std::string& old) {
         std::string now = read_file(index + "/data.mdb");
         for (size_t page = 0; page + 4096 <= old.size(); page += 8192) {
           now.replace(page, 4096, old, page, 4096);
         }
         write_file(index + "/data.mdb", now);
       }},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.what);
    const StoreFixture fixture;
    const std::string index = fixture.path() + "/index";
    std::string old;
    {
      const auto store = fixture.open();
      for (uint32_t number = 0; number < 5; ++number) {
        ASSERT_THAT(StoreFixture::ensure_sealed(*store, StoreFixture::key(number)), is_ok());
        old = number == 2 ? read_file(index + "/data.mdb") : old;
      }
    }
    row.harm(index, old);
    make_directories(index);
    const auto store = fixture.open();
    EXPECT_EQ(store->entries()->size(), 5U) << "all are listed, complete or to be checked";
    const auto removed = store->remove_leftovers(/*dry_run=*/false);
    ASSERT_THAT(removed, is_ok());
    EXPECT_EQ(removed->size(), 0U);
    for (uint32_t number = 0; number < 5; ++number) {
      EXPECT_EQ(serve(*store, StoreFixture::key(number)), 0U) << number;
    }
    EXPECT_EQ(StoreFixture::unsoundness(*store), "");
    EXPECT_EQ(store->catalog().list()->size(), 5U);
  }
}

// A folder in the place of a file of the cache is somebody else's: it is left alone, and in nobody's way.
TEST(StoreFolders, InThePlaceOfFilesAreLeftAlone) {
  const StoreFixture fixture;
  const auto store = fixture.open();
  const FillingKey key = StoreFixture::key(0);
  const std::string whole = StoreFixture::key(1).file;
  ASSERT_THAT(StoreFixture::ensure_sealed(*store, StoreFixture::key(1)), is_ok());
  ASSERT_THAT(store->open_filling(key), is_ok());
  const std::string map = fixture.path() + "/filling/" + key.file + ".map";
  const std::string lone = fixture.path() + "/filling/" + StoreFixture::key(2).file + ".map";
  std::filesystem::remove(map);
  make_directories(map);
  make_directories(lone);
  const auto entries = store->entries();
  ASSERT_THAT(entries, is_ok());
  EXPECT_EQ(entries->size(), 1U);
  EXPECT_THAT(store->totals(), is_ok());
  const auto leftovers = store->remove_leftovers(/*dry_run=*/false);
  ASSERT_THAT(leftovers, is_ok());
  EXPECT_EQ(leftovers->size(), 1U) << "the other half of the pair";
  for (const std::string& file : {key.file, StoreFixture::key(2).file, whole}) {
    EXPECT_THAT(store->drop(file, "a test"), is_ok()) << file;
  }
  EXPECT_TRUE(std::filesystem::is_directory(map));
  EXPECT_TRUE(std::filesystem::is_directory(lone));
  EXPECT_TRUE(store->entries()->empty());
}

// The fixed names under which a pair is begun may be those of anything: a crash's leftover, or a link of a stranger.
TEST(StoreFolders, WhatHasTheNamesOfBeginningsIsReplacedAndNotWritten) {
  const StoreFixture fixture;
  const auto store = fixture.open();
  const std::string victim = fixture.path() + "/victim";
  write_file(victim, "precious");
  const FillingKey key = StoreFixture::key(0);
  for (const bool hard : {true, false}) {
    for (const char* ending : {".new", ".map.new"}) {
      const std::string name = fixture.path() + "/filling/" + key.file + ending;
      hard ? std::filesystem::create_hard_link(victim, name) : std::filesystem::create_symlink(victim, name);
    }
    ASSERT_THAT(StoreFixture::ensure_sealed(*store, key), is_ok());
    EXPECT_EQ(read_file(victim), "precious");
    ASSERT_THAT(store->drop(key.file, "a test"), is_ok());
  }
  EXPECT_EQ(StoreFixture::unsoundness(*store), "");
}

TEST_F(StoreRecoveryTest, WhatWasDamagedMeanwhileIsFoundOut) {
  seal(1);
  const FillingKey key = StoreFixture::key(0);
  StoreFixture::make_writable(path(key.file));
  std::string bytes = read_file(path(key.file));
  bytes[2500] = static_cast<char>(bytes[2500] ^ 1);
  write_file(path(key.file), bytes);
  std::filesystem::remove_all(path("index"));
  make_directories(path("index"));
  const auto store = fixture_.open();
  EXPECT_EQ(serve(*store, key), 1U);
}

TEST_F(StoreRecoveryTest, WithoutAMapOfItsOwnAFileWithoutARecordIsDropped) {
  const FillingKey key = StoreFixture::key(0);
  const std::string map = path(key.file + ".map");
  const std::vector<std::function<void()>> harms = {
      [&] { std::filesystem::remove(map); },
      [&] { write_file(map, "text"); },
      [&] { std::filesystem::resize_file(map, 4096); },
      [&] { write_file(map, read_file(path(StoreFixture::key(1).file + ".map"))); },
      [&] {  // not all of it is marked
        std::string bytes = read_file(map);
        bytes[4096 + 3 * 64] = static_cast<char>(bytes[4096 + 3 * 64] ^ 1);
        write_file(map, bytes);
      },
      [&] {
        StoreFixture::make_writable(path(key.file));
        std::filesystem::resize_file(path(key.file), 1000);
      }};
  for (size_t harm = 0; harm < harms.size(); ++harm) {
    SCOPED_TRACE(harm);
    ASSERT_NO_FATAL_FAILURE(seal(2));
    const auto store = fixture_.open();
    ASSERT_THAT(store->catalog().erase(key.file), is_ok());
    harms[harm]();
    EXPECT_EQ(serve(*store, key), key.tile_count);
    EXPECT_EQ(StoreFixture::unsoundness(*store), "");
  }
}

TEST_F(StoreRecoveryTest, ACrashBetweenNameAndRecordCostsNothing) {
  seal(1);
  const FillingKey key = StoreFixture::key(0);
  const auto store = fixture_.open();
  for (const bool map_kept : {true, false}) {
    ASSERT_THAT(store->catalog().erase(key.file), is_ok());
    if (!map_kept) {
      std::filesystem::rename(path(key.file + ".map"), path("filling/" + key.file + ".map"));
    }
    EXPECT_EQ(store->remove_leftovers(/*dry_run=*/true)->size(), 0U);
    EXPECT_EQ(store->remove_leftovers(/*dry_run=*/false)->size(), 0U);
    EXPECT_EQ(serve(*store, key), 0U);
  }
}

TEST_F(StoreRecoveryTest, AFileThatIsBeingMadeKeepsItsNameFromOneWithoutARecord) {
  seal(1);
  const auto store = fixture_.open();
  ASSERT_THAT(store->catalog().erase(StoreFixture::key(0).file), is_ok());
  const FillingKey newer = StoreFixture::key(0, 2);
  const auto filling = *FillingFile::open(store->env(), store->directory(), newer);
  ASSERT_THAT(StoreFixture::fill(store->env(), *filling), is_ok());
  EXPECT_EQ(serve(*store, newer), 0U);
  EXPECT_EQ(StoreFixture::unsoundness(*store), "");
}

// As in a copy that was made while the file was being completed.
TEST_F(StoreRecoveryTest, ACompleteFileComesBeforeAnUnfinishedOneOfTheSameBytes) {
  const FillingKey key = StoreFixture::key(0);
  const std::string filling = path("filling/" + key.file);
  std::string data;
  std::string map;
  {
    const auto store = fixture_.open();
    const auto unfinished = *FillingFile::open(store->env(), store->directory(), key);
    data = read_file(filling);
    map = read_file(filling + ".map");
  }
  seal(1);
  const auto store = fixture_.open();
  ASSERT_THAT(store->catalog().erase(key.file), is_ok());
  write_file(filling, data);
  write_file(filling + ".map", map);
  EXPECT_EQ(serve(*store, key), 0U);
  EXPECT_EQ(StoreFixture::unsoundness(*store), "");
}

TEST_F(StoreRecoveryTest, TheMapGoesWithItsFile) {
  seal(2);
  const auto store = fixture_.open();
  ASSERT_TRUE(StoreFixture::exists(path(StoreFixture::key(0).file + ".map")));
  ASSERT_THAT(store->drop(StoreFixture::key(0).file, "test"), is_ok());
  EXPECT_FALSE(StoreFixture::exists(path(StoreFixture::key(0).file + ".map")));
  StoreFixture::make_writable(path(StoreFixture::key(1).file));
  set_mtime(path(StoreFixture::key(1).file), 1);
  ASSERT_THAT(store->demote(StoreFixture::key(1).file), is_ok());
  EXPECT_FALSE(StoreFixture::exists(path(StoreFixture::key(1).file + ".map")));
  EXPECT_TRUE(StoreFixture::exists(path("filling/" + StoreFixture::key(1).file + ".map")));
}

}  // namespace
}  // namespace qcache

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>

#include "tests/store/store_fixture.h"
#include "tests/support/btrfs_disk.h"
#include "tests/support/result_matchers.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

// A small filesystem of its own, which can really be full.
class FullDiskTest : public testing::Test {
 protected:
  void SetUp() override {
    make_directories(disk_);
    if (::mount("tmpfs", disk_.c_str(), "tmpfs", 0, "size=2m") != 0) {
      GTEST_SKIP() << "NOT TESTED: needs root, to mount a small filesystem (errno " << errno << ")";
    }
    mounted_ = true;
  }
  void TearDown() override {
    if (mounted_) {
      EXPECT_EQ(::umount2(disk_.c_str(), MNT_DETACH), 0);
    }
  }

  std::shared_ptr<Store> open() {
    auto directory = CacheDirectory::open(Env::posix(), disk_ + "/cache");
    EXPECT_THAT(directory, is_ok());
    auto store = Store::open(Env::posix(), *directory);
    EXPECT_THAT(store, is_ok());
    return store.value_or(nullptr);
  }
  // Writes until nothing goes any more.
  void fill_disk() {
    const auto fd = std::move(*Env::posix().open(disk_ + "/ballast", O_WRONLY | O_CREAT | O_APPEND, 0600));
    std::string piece(1U << 16U, 'x');
    while (!piece.empty()) {
      const ssize_t wrote = ::write(fd.get(), piece.data(), piece.size());
      if (wrote < static_cast<ssize_t>(piece.size())) {
        piece.resize(piece.size() / 2);
      }
    }
    ASSERT_EQ(Env::posix().space(disk_)->available_bytes, 0U);
  }

  StoreFixture fixture_;
  TempDir dir_;
  const std::string disk_ = dir_ / "disk";
  bool mounted_ = false;
};

TEST_F(FullDiskTest, WhatIsCachedIsServedAndCanBeDroppedAndNothingDies) {
  const FillingKey sealed = StoreFixture::key(0, 1, 200'000);  // its room is more than the other needs
  const FillingKey half = StoreFixture::key(1, 1, 100'000);
  const FillingKey fresh = StoreFixture::key(2);
  {
    const auto store = open();
    ASSERT_THAT(StoreFixture::ensure_sealed(*store, sealed), is_ok());
  }
  auto store = open();
  const auto filling = *FillingFile::open(store->env(), store->directory(), half);
  ASSERT_NO_FATAL_FAILURE(fill_disk());

  // Marking goes on, writing fails, a new file cannot begin, and the failures say why.
  EXPECT_THAT(filling->mark(0, {}), is_ok());
  EXPECT_THAT(filling->unmark(0), is_ok());
  EXPECT_THAT(StoreFixture::fill(store->env(), *filling), fails_with(ErrorKind::kNoSpace, {half.file}));
  EXPECT_THAT(FillingFile::open(store->env(), store->directory(), fresh), fails_with(ErrorKind::kNoSpace, {"cannot"}));

  // What is there is served, by this store and by one that opens on the full disk.
  for (int round = 0; round < 2; ++round) {
    SealedFile found;
    EXPECT_EQ(store->find_sealed(sealed.file, sealed.recipe, found), SealedState::kTrusted);
    EXPECT_EQ(StoreFixture::bytes_of(found.fd.get()), StoreFixture::content(sealed));
    const Status touched = store->catalog().touch(std::vector<AccessUpdate>{{sealed.file, 5, 1}});
    EXPECT_TRUE(touched.has_value() || touched.error().kind == ErrorKind::kNoSpace) << touched.error().message;
    store.reset();
    store = open();
    ASSERT_NE(store, nullptr);
  }

  // rm makes room, and then all goes on.
  EXPECT_GE(*store->drop(sealed.file, "test"), sealed.size_bytes);
  EXPECT_THAT(StoreFixture::fill(store->env(), *filling), is_ok());
  SealedFile found;
  EXPECT_EQ(store->find_sealed(sealed.file, sealed.recipe, found), SealedState::kAbsent);
  EXPECT_EQ(StoreFixture::unsoundness(*store), "");
}

TEST_F(FullDiskTest, ACatalogThatCannotGrowRefusesAndRecovers) {
  const auto store = open();
  const FillingKey key = StoreFixture::key();
  ASSERT_NO_FATAL_FAILURE(fill_disk());
  Record record = StoreFixture::draft(key);
  record.file = key.file;
  record.tile_count = 10'000;
  const std::vector<Sha256Digest> tiles(record.tile_count);
  for (int round = 0; round < 3; ++round) {
    EXPECT_THAT(store->catalog().put(record, tiles, {}), fails_with(ErrorKind::kNoSpace, {"index"}));
    EXPECT_EQ(store->catalog().list()->size(), 0U);
  }
  ASSERT_THAT(Env::posix().remove(disk_ + "/ballast"), is_ok());
  EXPECT_THAT(store->catalog().put(record, tiles, {}), is_ok());
  EXPECT_EQ(store->catalog().tile_digests(key.file)->size(), record.tile_count);
}

TEST_F(FullDiskTest, AFirstStartOnAFullDiskIsAFailureThatSaysSo) {
  make_directories(disk_ + "/cache/index");
  make_directories(disk_ + "/cache/filling");
  ASSERT_NO_FATAL_FAILURE(fill_disk());
  const auto directory = CacheDirectory::open(Env::posix(), disk_ + "/cache");
  ASSERT_THAT(directory, is_ok());
  EXPECT_THAT(Store::open(Env::posix(), *directory), fails_with(ErrorKind::kNoSpace, {"index"}));
  ASSERT_THAT(Env::posix().remove(disk_ + "/ballast"), is_ok());
  EXPECT_THAT(Store::open(Env::posix(), *directory), is_ok());
}

TEST_F(FullDiskTest, SealingOnADiskThatFillsUpLosesNothing) {
  const auto store = open();
  const FillingKey key = StoreFixture::key(0, 1, 300'000);
  const auto filling = *FillingFile::open(store->env(), store->directory(), key);
  ASSERT_THAT(StoreFixture::fill(store->env(), *filling), is_ok());
  ASSERT_NO_FATAL_FAILURE(fill_disk());
  const auto sealed = store->seal(*filling, StoreFixture::draft(key));
  if (!sealed.has_value()) {  // the catalog may have room in pages it already has
    EXPECT_THAT(sealed, fails_with(ErrorKind::kNoSpace, {"index"}));
    EXPECT_TRUE(filling->is_current());
    EXPECT_EQ(filling->marked_count(), key.tile_count);
  }
  ASSERT_THAT(Env::posix().remove(disk_ + "/ballast"), is_ok());
  const auto served = StoreFixture::ensure_sealed(*store, key);
  ASSERT_THAT(served, is_ok());
  EXPECT_EQ(StoreFixture::bytes_of(served->fd.get()), StoreFixture::content(key));
}

// On such a disk a store into a mapping is SIGBUS, even where the file's blocks are all there.
TEST(FullBtrfs, EndsNobodyWhoIsThereOrComesAndCanBeCleared) {
  const TempDir dir;
  std::string reason;
  const auto disk = BtrfsDisk::make(dir / "image", dir / "disk", reason);
  if (disk == nullptr) {
    GTEST_SKIP() << "NOT TESTED: " << reason;
  }
  const FillingKey sealed = StoreFixture::key(0, 1, 20'000'000);
  const FillingKey half = StoreFixture::key(1, 1, 5'000'000);
  const auto open = [&]() -> std::shared_ptr<Store> {
    auto directory = CacheDirectory::open(Env::posix(), dir / "disk/cache");
    EXPECT_THAT(directory, is_ok());
    auto store = Store::open(Env::posix(), *directory);
    EXPECT_THAT(store, is_ok());
    return store.value_or(nullptr);
  };
  auto store = open();
  ASSERT_NE(store, nullptr);
  ASSERT_THAT(StoreFixture::ensure_sealed(*store, sealed), is_ok());
  const auto filling = *FillingFile::open(store->env(), store->directory(), half);
  for (uint32_t tile = 0; tile < half.tile_count; tile += 2) {
    ASSERT_THAT(filling->mark(tile, {}), is_ok());
  }
  disk->fill();

  uint32_t refused = 0;
  const auto done_or_full = [&](const Status& status) {
    EXPECT_TRUE(status.has_value() || status.error().kind == ErrorKind::kNoSpace) << status.error().message;
    refused += status.has_value() ? 0U : 1U;
  };
  for (int round = 0; round < 3; ++round) {
    for (uint32_t tile = 0; tile < half.tile_count; tile += 10) {
      done_or_full(filling->mark(tile, StoreFixture::right_mark(half, tile)));
    }
    done_or_full(store->catalog().touch(std::vector<AccessUpdate>{{sealed.file, 5, 1}}));
    SealedFile found;
    EXPECT_EQ(store->find_sealed(sealed.file, sealed.recipe, found), SealedState::kTrusted);
    found.fd.reset();
    EXPECT_EQ(store->entries()->size(), 2U);
    disk->sync();
    store.reset();
    store = open();
    ASSERT_NE(store, nullptr);
  }
  EXPECT_GT(refused, 0U) << "the disk was not full: this tests nothing";

  EXPECT_GE(*store->drop(sealed.file, "test"), sealed.size_bytes);
  disk->sync();
  for (uint32_t tile = 0; tile < half.tile_count; tile += 10) {
    ASSERT_THAT(filling->mark(tile, StoreFixture::right_mark(half, tile)), is_ok());
  }
  EXPECT_THAT(StoreFixture::ensure_sealed(*store, half), is_ok());
  EXPECT_EQ(StoreFixture::unsoundness(*store), "");
}

// The first time that this build uses a catalog of an older one it has something to write.
TEST_F(FullDiskTest, ACatalogOfAnOlderBuildIsUsedOnAFullDisk) {
  make_directories(disk_ + "/cache/index");
  write_file(disk_ + "/cache/index/data.mdb", read_file(std::string(QCACHE_STORE_TEST_DATA) + "/catalog_schema_1.mdb"));
  ASSERT_NO_FATAL_FAILURE(fill_disk());
  const auto catalog = Catalog::open(disk_ + "/cache/index");
  ASSERT_THAT(catalog, is_ok());
  EXPECT_EQ((*catalog)->list()->size(), 2U);
  ASSERT_THAT(Env::posix().remove(disk_ + "/ballast"), is_ok());
  EXPECT_THAT((*catalog)->erase("x"), is_ok());
  EXPECT_EQ(run_child([&] {
              const int fd = ::open((disk_ + "/cache/index/users").c_str(), O_RDWR | O_CLOEXEC);
              return Env::posix().try_lock_byte(fd, 0, LockKind::kExclusive).value_or(false)
                         ? 0
                         : 1;  // it is somebody else's turn again
            }),
            0);
}

}  // namespace
}  // namespace qcache

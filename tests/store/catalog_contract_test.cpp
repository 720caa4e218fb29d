// What every Catalog keeps to: the one that is used, and the fake that tests of the store are given.

#include <gtest/gtest.h>

#include <atomic>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "core/store/catalog.h"
#include "tests/store/catalog_entries.h"
#include "tests/support/fake_catalog.h"
#include "tests/support/result_matchers.h"

namespace qcache {
namespace {

class CatalogContract : public testing::TestWithParam<CatalogKind> {
 protected:
  std::shared_ptr<Catalog> open() {
    if (const auto fake = fixture_.fake_catalog()) {
      return fake;
    }
    auto catalog = Catalog::open(directory_.index_path());
    EXPECT_THAT(catalog, is_ok());
    return catalog.value_or(nullptr);
  }

  StoreFixture fixture_{GetParam()};
  const CacheDirectory directory_ = *CacheDirectory::open(Env::posix(), fixture_.path());
};

TEST_P(CatalogContract, KeepsAllOfAnEntryAcrossOpenings) {
  Record whole = record(1);
  whole.virtual_path = "m\xff/int8/16.bin";  // file names need not be UTF-8
  whole.rank = 16;
  whole.recipe.fill(0xfe);
  whole.method.fill(0x7f);
  whole.size_bytes = uint64_t{1} << 40U;
  whole.sha256.fill(0x80);
  whole.backing = {std::numeric_limits<uint64_t>::max(), uint64_t{1} << 40U, -5, std::numeric_limits<int64_t>::max()};
  whole.accessed_ns = -1;
  whole.hits = std::numeric_limits<uint64_t>::max();
  whole.pinned = true;
  const std::vector<TensorQuality> figures = {{"a.q_proj", 100, 1, 64}, {"b.q_proj", 3, 0, 64}};
  whole.root.fill(0x81);
  const std::vector<uint8_t> parts = {1, 2, 3};
  ASSERT_THAT(open()->put(whole, tiles(1), parts, figures), is_ok());
  ASSERT_THAT(put(*open(), 2, 5'000), is_ok());
  ASSERT_THAT(put(*open(), 3, 0), is_ok());
  const auto catalog = open();
  const auto found = catalog->find(whole.file);
  ASSERT_THAT(found, is_ok());
  ASSERT_TRUE(found->has_value());
  EXPECT_EQ(encode_record(**found), encode_record(whole));
  EXPECT_EQ(catalog->tile_digests(whole.file), tiles(1));
  EXPECT_EQ(catalog->tile_digests(record(2).file), tiles(2, 5'000));
  EXPECT_EQ(catalog->tile_digests(record(3).file), tiles(3, 0));
  EXPECT_EQ(catalog->parts(whole.file), parts);
  EXPECT_EQ(catalog->parts(record(2).file), std::vector<uint8_t>());
  EXPECT_EQ(catalog->quality(whole.file, whole.contents()), figures);
  EXPECT_EQ(catalog->list()->size(), 3U);
}

TEST_P(CatalogContract, AbsentIsNotAFailure) {
  const auto catalog = open();
  EXPECT_EQ(catalog->list()->size(), 0U);
  EXPECT_EQ(catalog->files()->size(), 0U);
  for (const std::string& file : {std::string("nothing"), std::string(), std::string(5000, 'x')}) {
    EXPECT_EQ(*catalog->find(file), std::nullopt);
    EXPECT_EQ(catalog->tile_digests(file), std::vector<Sha256Digest>());
    EXPECT_EQ(catalog->quality(file, {}), std::vector<TensorQuality>());
    EXPECT_EQ(catalog->parts(file), std::vector<uint8_t>());
    EXPECT_THAT(catalog->amend(file, {}, {}), fails_with(ErrorKind::kNotFound, {file}));
    EXPECT_THAT(catalog->erase(file), is_ok());
    EXPECT_THAT(catalog->touch(std::vector<AccessUpdate>{{file, 1, 1}}), is_ok());
    EXPECT_THAT(catalog->set_pinned(file, true), fails_with(ErrorKind::kNotFound, {file}));
  }
  EXPECT_THAT(catalog->touch({}), is_ok());
  EXPECT_EQ(catalog->list()->size(), 0U);
}

TEST_P(CatalogContract, PutReplacesAndEraseRemovesAllOfAnEntry) {
  const auto catalog = open();
  ASSERT_THAT(put(*catalog, 1), is_ok());
  ASSERT_THAT(put(*catalog, 2), is_ok());
  Record changed = record(1, 5);
  changed.hits = 9;
  ASSERT_THAT(catalog->put(changed, tiles(40, 5), {}), is_ok());
  EXPECT_EQ((*catalog->find(changed.file))->hits, 9U);
  EXPECT_EQ(catalog->tile_digests(changed.file), tiles(40, 5));
  EXPECT_EQ(catalog->list()->size(), 2U);
  ASSERT_THAT(catalog->erase(changed.file), is_ok());
  EXPECT_EQ(*catalog->find(changed.file), std::nullopt);
  EXPECT_EQ(catalog->tile_digests(changed.file)->size(), 0U);
  EXPECT_EQ(catalog->tile_digests(record(2).file), tiles(2));
  EXPECT_EQ(*catalog->files(), std::vector<std::string>{record(2).file});
}

TEST_P(CatalogContract, PartsBelongToTheirEntry) {
  const auto catalog = open();
  const std::vector<uint8_t> parts(100'000, 7);
  ASSERT_THAT(catalog->put(record(1), tiles(1), parts, {}), is_ok());
  ASSERT_THAT(catalog->set_pinned(record(1).file, true), is_ok());
  EXPECT_EQ(catalog->parts(record(1).file), parts);
  EXPECT_EQ(catalog->tile_digests(record(1).file), tiles(1));
  EXPECT_EQ(catalog->files()->size(), 1U);
  ASSERT_THAT(put(*catalog, 1), is_ok());
  EXPECT_EQ(catalog->parts(record(1).file), std::vector<uint8_t>()) << "the new entry has none";
  ASSERT_THAT(catalog->put(record(1), tiles(1), parts, {}), is_ok());
  ASSERT_THAT(catalog->erase(record(1).file), is_ok());
  EXPECT_EQ(catalog->parts(record(1).file), std::vector<uint8_t>());
}

TEST_P(CatalogContract, AmendsOnlyTheContentsThatAreMeant) {
  const std::vector<TensorQuality> figures = {{"a.q_proj", 100, 1, 64}};
  const auto catalog = open();
  Record sealed = record(1);
  sealed.root.fill(1);
  sealed.pinned = true;
  ASSERT_THAT(catalog->put(sealed, tiles(1), std::vector<uint8_t>{1}, {}), is_ok());
  EXPECT_FALSE((*catalog->find(sealed.file))->is_hashed());
  Amendment amendment{tiles(9)[0], figures};
  EXPECT_THAT(catalog->amend(sealed.file, tiles(2)[0], amendment), fails_with(ErrorKind::kNotFound, {sealed.file}));
  EXPECT_FALSE((*catalog->find(sealed.file))->is_hashed());
  ASSERT_THAT(catalog->amend(sealed.file, sealed.root, amendment), is_ok());
  sealed.sha256 = amendment.sha256;
  EXPECT_EQ(encode_record(**catalog->find(sealed.file)), encode_record(sealed)) << "all else stays";
  EXPECT_EQ(catalog->quality(sealed.file, sealed.root), figures);
  amendment.quality.clear();
  ASSERT_THAT(catalog->amend(sealed.file, sealed.root, amendment), is_ok());
  EXPECT_EQ(catalog->quality(sealed.file, sealed.root), figures) << "not measured takes nothing away";
}

TEST_P(CatalogContract, ListsByFile) {
  const auto catalog = open();
  const std::vector<std::string> files = {"B", "a", "a.bin", "a.bin.x", "b", "\xff"};
  for (const size_t i : {3U, 0U, 5U, 1U, 4U, 2U}) {
    Record named = record(1, 0);
    named.file = files[i];
    ASSERT_THAT(catalog->put(named, {}, {}), is_ok());
  }
  EXPECT_EQ(*catalog->files(), files);
  const auto records = catalog->list();
  ASSERT_EQ(records->size(), files.size());
  for (size_t i = 0; i < files.size(); ++i) {
    EXPECT_EQ((*records)[i].file, files[i]);
  }
}

TEST_P(CatalogContract, KeepsQualityFiguresAsLongAsTheContents) {
  const std::vector<TensorQuality> figures = {{"a.q_proj", 100, 1, 64}, {"b.q_proj", 3, 0, 64}};
  const auto catalog = open();
  Record one = record(1);
  one.sha256.fill(1);
  ASSERT_THAT(catalog->put(one, tiles(1), figures), is_ok());
  EXPECT_EQ(catalog->quality(record(2).file, record(2).sha256), std::vector<TensorQuality>());
  ASSERT_THAT(catalog->touch(std::vector<AccessUpdate>{{one.file, 5'000, 2}}), is_ok());
  ASSERT_THAT(catalog->set_pinned(one.file, true), is_ok());
  EXPECT_EQ(catalog->quality(one.file, one.sha256), figures);

  Record other_contents = one;
  other_contents.sha256.fill(2);
  EXPECT_EQ(catalog->quality(other_contents.file, other_contents.sha256), std::vector<TensorQuality>());
  ASSERT_THAT(catalog->put(other_contents, tiles(1), {}), is_ok());
  EXPECT_EQ(catalog->quality(one.file, one.sha256), std::vector<TensorQuality>());
  ASSERT_THAT(catalog->put(one, tiles(1), figures), is_ok());
  ASSERT_THAT(catalog->erase(one.file), is_ok());
  EXPECT_EQ(catalog->quality(one.file, one.sha256), std::vector<TensorQuality>());
}

TEST_P(CatalogContract, TouchAddsHitsAndOnlyRaisesTimes) {
  const auto catalog = open();
  ASSERT_THAT(put(*catalog, 1), is_ok());
  ASSERT_THAT(put(*catalog, 2), is_ok());
  const std::string one = record(1).file;
  const std::string two = record(2).file;
  ASSERT_THAT(catalog->touch(std::vector<AccessUpdate>{{one, 5'000, 2}, {"gone", 1, 1}, {two, 10, 1}, {one, 4'000, 3}}),
              is_ok());
  EXPECT_EQ((*catalog->find(one))->hits, 5U);
  EXPECT_EQ((*catalog->find(one))->accessed_ns, 5'000);
  EXPECT_EQ((*catalog->find(two))->hits, 1U);
  EXPECT_EQ((*catalog->find(two))->accessed_ns, 1'000);
  EXPECT_EQ(*catalog->find("gone"), std::nullopt);
}

TEST_P(CatalogContract, PinsAndUnpins) {
  const auto catalog = open();
  ASSERT_THAT(put(*catalog, 1), is_ok());
  ASSERT_THAT(catalog->set_pinned(record(1).file, true), is_ok());
  EXPECT_TRUE((*catalog->find(record(1).file))->pinned);
  EXPECT_EQ(catalog->tile_digests(record(1).file), tiles(1));
  ASSERT_THAT(catalog->set_pinned(record(1).file, false), is_ok());
  EXPECT_FALSE((*catalog->find(record(1).file))->pinned);
}

TEST_P(CatalogContract, RefusesWhatItCannotStoreAndKeepsWhatItHas) {
  const auto catalog = open();
  Record long_name = record(1, 0);
  long_name.file.assign(Catalog::kMaxFileBytes + 1, 'x');
  EXPECT_THAT(catalog->put(long_name, {}, {}), fails_with(ErrorKind::kInvalidArgument, {"too long"}));
  long_name.file.pop_back();
  EXPECT_THAT(catalog->put(long_name, {}, {}), is_ok());
  Record nameless = record(1, 0);
  nameless.file.clear();
  EXPECT_THAT(catalog->put(nameless, {}, {}), fails_with(ErrorKind::kInvalidArgument, {}));

  Record long_path = record(2, 0);
  long_path.model_path.assign(kMaxRecordBytes / 2, 'x');
  long_path.model_path.append(kMaxRecordBytes - encode_record(long_path).size(), 'x');
  Record to_be_amended = long_path;
  to_be_amended.root.fill(1);
  EXPECT_THAT(catalog->put(to_be_amended, {}, {}), fails_with(ErrorKind::kInvalidArgument, {"too long"}));
  EXPECT_THAT(catalog->put(long_path, {}, {}), is_ok());
  long_path.model_path += 'x';
  long_path.hits = 1;
  EXPECT_THAT(catalog->put(long_path, {}, {}), fails_with(ErrorKind::kInvalidArgument, {"too long"}));
  EXPECT_EQ((*catalog->find(long_path.file))->hits, 0U);

  ASSERT_THAT(put(*catalog, 3), is_ok());
  EXPECT_THAT(catalog->put(record(3, 3), tiles(0, 2), {}), fails_with(ErrorKind::kInternal, {"2 digests"}));
  EXPECT_EQ(catalog->tile_digests(record(3).file), tiles(3));
  EXPECT_EQ(catalog->list()->size(), 3U);
}

TEST_P(CatalogContract, ThreadsLoseNothingOfEachOther) {
  const auto catalog = open();
  for (uint32_t number = 0; number < 4; ++number) {
    ASSERT_THAT(put(*catalog, number), is_ok());
  }
  std::atomic<int> failures = 0;
  std::vector<std::thread> threads;
  for (uint32_t id = 0; id < 4; ++id) {
    threads.emplace_back([&, id] {
      for (uint32_t round = 0; round < 10; ++round) {
        const std::vector<AccessUpdate> updates = {{record(0).file, 1, 1}, {record(id).file, 1, 1}};
        failures += catalog->touch(updates).has_value() ? 0 : 1;
        failures += put(*catalog, 10 + id * 10 + round).has_value() ? 0 : 1;
        failures += catalog->list().has_value() ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(failures, 0);
  EXPECT_EQ((*catalog->find(record(0).file))->hits, 50U);
  EXPECT_EQ((*catalog->find(record(3).file))->hits, 10U);
  EXPECT_EQ(catalog->list()->size(), 44U);
}

INSTANTIATE_TEST_SUITE_P(Catalogs, CatalogContract, testing::Values(CatalogKind::kLmdb, CatalogKind::kFake),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace qcache

#include "core/store/catalog.h"

#include <gtest/gtest.h>
#include <lmdb.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "tests/store/store_fixture.h"
#include "tests/support/result_matchers.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

class CatalogTest : public testing::Test {
 protected:
  void SetUp() override { make_directories(path_); }

  std::shared_ptr<Catalog> open(uint64_t map_bytes = uint64_t{4} << 30U) {
    CatalogOptions options;
    options.map_bytes = map_bytes;
    auto catalog = Catalog::open(path_, options);
    EXPECT_THAT(catalog, is_ok());
    return catalog.value_or(nullptr);
  }
  static Record record(uint32_t number, uint32_t tiles = 3) {
    const FillingKey key = StoreFixture::key(number);
    Record record = StoreFixture::draft(key);
    record.file = key.file;
    record.tile_count = tiles;
    return record;
  }
  static std::vector<Sha256Digest> tiles(uint8_t seed, uint32_t count = 3) {
    std::vector<Sha256Digest> out(count);
    for (uint32_t i = 0; i < count; ++i) {
      out[i].fill(static_cast<uint8_t>(seed + i));
    }
    return out;
  }
  static Status put(Catalog& catalog, uint32_t number, uint32_t count = 3) {
    return catalog.put(record(number, count), tiles(static_cast<uint8_t>(number), count), {});
  }
  std::vector<std::string> moved_aside() {
    std::vector<std::string> names;
    const auto all = Env::posix().list(fixture_.path());
    for (const std::string& name : *all) {
      if (name.find("index.corrupt-") == 0) {
        names.push_back(name);
      }
    }
    return names;
  }
  void wait_for(const std::string& name) {
    for (int i = 0; !StoreFixture::exists(fixture_.path() + name); ++i) {
      ASSERT_LT(i, 60'000) << name << " never came";
      ::usleep(1'000);
    }
  }

  StoreFixture fixture_;
  const std::string path_ = fixture_.path() + "/index";
};

TEST_F(CatalogTest, KeepsRecordsAndTilesAcrossOpenings) {
  ASSERT_THAT(put(*open(), 1), is_ok());
  ASSERT_THAT(put(*open(), 2), is_ok());
  const auto catalog = open();
  const auto found = catalog->find(record(1).file);
  ASSERT_THAT(found, is_ok());
  ASSERT_TRUE(found->has_value());
  EXPECT_EQ((*found)->virtual_path, "m1/int8/0.bin");
  EXPECT_EQ(catalog->tile_digests(record(1).file), tiles(1));
  EXPECT_EQ(catalog->tile_digests(record(2).file), tiles(2));
  EXPECT_EQ(catalog->list()->size(), 2U);
}

TEST_F(CatalogTest, AbsentIsNotAFailure) {
  const auto catalog = open();
  for (const std::string& file : {std::string("nothing"), std::string(), std::string(5000, 'x')}) {
    EXPECT_EQ(*catalog->find(file), std::nullopt);
    EXPECT_EQ(catalog->tile_digests(file), std::vector<Sha256Digest>());
    EXPECT_THAT(catalog->erase(file), is_ok());
    EXPECT_THAT(catalog->touch(std::vector<AccessUpdate>{{file, 1, 1}}), is_ok());
    EXPECT_THAT(catalog->set_pinned(file, true), fails_with(ErrorKind::kNotFound, {file, path_}));
  }
}

TEST_F(CatalogTest, PutReplacesAndEraseRemovesBoth) {
  const auto catalog = open();
  ASSERT_THAT(put(*catalog, 1), is_ok());
  Record changed = record(1, 5);
  changed.hits = 9;
  ASSERT_THAT(catalog->put(changed, tiles(40, 5), {}), is_ok());
  EXPECT_EQ((*catalog->find(changed.file))->hits, 9U);
  EXPECT_EQ(catalog->tile_digests(changed.file), tiles(40, 5));
  EXPECT_EQ(catalog->list()->size(), 1U);
  ASSERT_THAT(catalog->erase(changed.file), is_ok());
  EXPECT_EQ(*catalog->find(changed.file), std::nullopt);
  EXPECT_EQ(catalog->tile_digests(changed.file)->size(), 0U);
}

TEST_F(CatalogTest, KeepsQualityFiguresAsLongAsTheContents) {
  const std::vector<TensorQuality> figures = {{"a.q_proj", 100, 1, 64}, {"b.q_proj", 3, 0, 64}};
  Record one = record(1);
  one.sha256.fill(1);
  ASSERT_THAT(open()->put(one, tiles(1), figures), is_ok());
  const auto catalog = open();
  EXPECT_EQ(catalog->quality(one), figures);
  EXPECT_EQ(catalog->quality(record(2)), std::vector<TensorQuality>());
  ASSERT_THAT(catalog->touch(std::vector<AccessUpdate>{{one.file, 5'000, 2}}), is_ok());
  ASSERT_THAT(catalog->set_pinned(one.file, true), is_ok());
  EXPECT_EQ(catalog->quality(one), figures);

  Record other_contents = one;
  other_contents.sha256.fill(2);
  EXPECT_EQ(catalog->quality(other_contents), std::vector<TensorQuality>());
  ASSERT_THAT(catalog->put(other_contents, tiles(1), {}), is_ok());
  EXPECT_EQ(catalog->quality(one), std::vector<TensorQuality>());
  ASSERT_THAT(catalog->put(one, tiles(1), figures), is_ok());
  ASSERT_THAT(catalog->erase(one.file), is_ok());
  EXPECT_EQ(catalog->quality(one), std::vector<TensorQuality>());
}

TEST_F(CatalogTest, ACatalogOfABuildWithoutQualityFiguresGoesOn) {
  ASSERT_THAT(put(*open(), 1), is_ok());
  {
    MDB_env* env = nullptr;
    ASSERT_EQ(mdb_env_create(&env), 0);
    mdb_env_set_maxdbs(env, 4);
    ASSERT_EQ(mdb_env_open(env, path_.c_str(), 0, 0600), 0);
    MDB_txn* txn = nullptr;
    MDB_dbi quality = 0;
    ASSERT_EQ(mdb_txn_begin(env, nullptr, 0, &txn), 0);
    ASSERT_EQ(mdb_dbi_open(txn, "quality", 0, &quality), 0);
    ASSERT_EQ(mdb_drop(txn, quality, 1), 0);
    ASSERT_EQ(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
  }
  const auto catalog = open();
  EXPECT_TRUE(catalog->find(record(1).file)->has_value());
  EXPECT_EQ(catalog->tile_digests(record(1).file), tiles(1));
  EXPECT_EQ(catalog->quality(record(1)), std::vector<TensorQuality>());
  const std::vector<TensorQuality> figures = {{"a.q_proj", 100, 1, 64}};
  ASSERT_THAT(catalog->put(record(2), tiles(2), figures), is_ok());
  EXPECT_EQ(catalog->quality(record(2)), figures);
}

TEST_F(CatalogTest, TouchAddsHitsAndOnlyRaisesTimes) {
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

TEST_F(CatalogTest, PinsAndUnpins) {
  const auto catalog = open();
  ASSERT_THAT(put(*catalog, 1), is_ok());
  ASSERT_THAT(catalog->set_pinned(record(1).file, true), is_ok());
  EXPECT_TRUE((*catalog->find(record(1).file))->pinned);
  EXPECT_EQ(catalog->tile_digests(record(1).file), tiles(1));
  ASSERT_THAT(catalog->set_pinned(record(1).file, false), is_ok());
  EXPECT_FALSE((*catalog->find(record(1).file))->pinned);
}

TEST_F(CatalogTest, RefusesWhatItCannotStore) {
  const auto catalog = open();
  Record long_name = record(1, 0);
  long_name.file.assign(512, 'x');
  EXPECT_THAT(catalog->put(long_name, {}, {}), fails_with(ErrorKind::kInvalidArgument, {"too long"}));
  long_name.file.pop_back();
  EXPECT_THAT(catalog->put(long_name, {}, {}), is_ok());
  Record long_path = record(2, 0);
  long_path.model_path.assign(kMaxRecordBytes, 'x');
  EXPECT_THAT(catalog->put(long_path, {}, {}), fails_with(ErrorKind::kInvalidArgument, {"too long"}));
  EXPECT_THAT(catalog->put(record(3, 3), tiles(0, 2), {}), fails_with(ErrorKind::kInternal, {"2 digests"}));
  EXPECT_EQ(catalog->list()->size(), 1U);
}

TEST_F(CatalogTest, OneProcessHasItOpenOnce) {
  const auto one = open();
  make_link("index", fixture_.path() + "/other-name");
  EXPECT_EQ(one, *Catalog::open(fixture_.path() + "/other-name"));
}

TEST_F(CatalogTest, ThreadsMayOpenAndCloseAtTheSameTime) {
  std::atomic<int> failures = 0;
  std::vector<std::thread> threads;
  for (uint32_t id = 0; id < 4; ++id) {
    threads.emplace_back([&, id] {
      for (uint32_t round = 0; round < 25; ++round) {
        const auto catalog = Catalog::open(path_);
        failures += catalog.has_value() && put(**catalog, id * 100 + round).has_value() ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(open()->list()->size(), 100U);
}

TEST_F(CatalogTest, ProcessesMayOpenAndCloseAtTheSameTime) {
  std::vector<pid_t> children;
  for (uint32_t id = 0; id < 4; ++id) {
    children.push_back(start_child([&, id] {
      for (uint32_t round = 0; round < 25; ++round) {
        const auto catalog = Catalog::open(path_);
        if (!catalog.has_value() || !put(**catalog, id * 100 + round).has_value()) {
          return 1;
        }
      }
      return 0;
    }));
  }
  for (const pid_t child : children) {
    EXPECT_EQ(wait_for_child(child), 0);
  }
  EXPECT_EQ(open()->list()->size(), 100U);
}

TEST_F(CatalogTest, RefusesToWorkAfterAFork) {
  const auto catalog = open();
  ASSERT_THAT(put(*catalog, 1), is_ok());
  EXPECT_EQ(run_child([&] { return catalog->find("x").has_value() ? 1 : 0; }), 0);
  EXPECT_THAT(put(*catalog, 2), is_ok());
}

TEST_F(CatalogTest, GrowsWhenItsMapIsFull) {
  const auto catalog = open(1U << 20U);
  constexpr uint32_t kTiles = 4096;  // 128 KiB of digests
  for (uint32_t number = 0; number < 40; ++number) {
    ASSERT_THAT(put(*catalog, number, kTiles), is_ok()) << number;
  }
  for (uint32_t number = 0; number < 40; ++number) {
    EXPECT_EQ(catalog->tile_digests(record(number).file), tiles(static_cast<uint8_t>(number), kTiles));
  }
}

TEST_F(CatalogTest, GrowsUnderRunningReaders) {
  const auto catalog = open(1U << 20U);
  constexpr uint32_t kTiles = 4096;
  ASSERT_THAT(put(*catalog, 0, kTiles), is_ok());
  std::atomic<bool> stop = false;
  std::atomic<int> wrong = 0;
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      while (!stop) {
        wrong += catalog->tile_digests(record(0).file) == tiles(0, kTiles) ? 0 : 1;
      }
    });
  }
  for (uint32_t number = 1; number < 30; ++number) {
    EXPECT_THAT(put(*catalog, number, kTiles), is_ok());
  }
  stop = true;
  for (std::thread& reader : readers) {
    reader.join();
  }
  EXPECT_EQ(wrong, 0);
}

TEST_F(CatalogTest, AdoptsGrowthByAnotherProcess) {
  constexpr uint32_t kTiles = 4096;
  const pid_t waiting = start_child([&] {
    const auto catalog = open(1U << 20U);
    write_file(fixture_.path() + "/ready", "");
    wait_for("/grown");
    const auto list = catalog->list();
    const Status written = put(*catalog, 99);
    return list.has_value() && list->size() == 40 && written.has_value() ? 0 : 1;
  });
  wait_for("/ready");
  {
    const auto catalog = open(1U << 20U);
    for (uint32_t number = 0; number < 40; ++number) {
      ASSERT_THAT(put(*catalog, number, kTiles), is_ok());
    }
  }
  write_file(fixture_.path() + "/grown", "");
  EXPECT_EQ(wait_for_child(waiting), 0);
  EXPECT_EQ(open(1U << 20U)->list()->size(), 41U);
}

TEST_F(CatalogTest, ReadsAndWritesWhereLivingReadersTakeEverySlot) {
  const CatalogOptions options{uint64_t{4} << 30U, /*max_readers=*/4};
  const auto catalog = *Catalog::open(path_, options);
  ASSERT_THAT(put(*catalog, 1), is_ok());
  const pid_t crowd = start_child([&] {
    MDB_env* env = nullptr;
    if (mdb_env_create(&env) != 0 || mdb_env_open(env, path_.c_str(), MDB_RDONLY | MDB_NOTLS, 0) != 0) {
      return 1;
    }
    int rc = 0;
    for (MDB_txn* txn = nullptr; rc == 0;) {
      rc = mdb_txn_begin(env, nullptr, MDB_RDONLY, &txn);
    }
    write_file(fixture_.path() + "/full", "");
    wait_for("/done");
    return rc == MDB_READERS_FULL ? 0 : 2;
  });
  wait_for("/full");
  EXPECT_EQ(catalog->list()->size(), 1U);
  EXPECT_THAT(put(*catalog, 2), is_ok());
  EXPECT_EQ(catalog->list()->size(), 2U);
  EXPECT_EQ((*Catalog::open(path_, options))->list()->size(), 2U);
  write_file(fixture_.path() + "/done", "");
  EXPECT_EQ(wait_for_child(crowd), 0);
}

TEST_F(CatalogTest, SurvivesReadersThatWereKilled) {
  const CatalogOptions options{uint64_t{4} << 30U, /*max_readers=*/16};
  {
    // Long records make listing slow enough that most threads are amid it when the kill comes.
    const auto catalog = *Catalog::open(path_, options);
    for (uint32_t number = 0; number < 60; ++number) {
      Record long_record = record(number, 0);
      long_record.model_path.assign(4000, 'x');
      ASSERT_THAT(catalog->put(long_record, {}, {}), is_ok());
    }
  }
  // Keeps the lock file from being begun anew, so that the dead ones' slots stay taken, and finds none free at last.
  const pid_t keeper = start_child([&] {
    const auto catalog = *Catalog::open(path_, options);
    write_file(fixture_.path() + "/ready", "");
    wait_for("/killed");
    for (int i = 0; i < 10; ++i) {
      const auto list = catalog->list();
      if (!list.has_value() || list->size() != 60) {
        return 1;
      }
    }
    return catalog->erase(record(0).file).has_value() ? 0 : 2;
  });
  wait_for("/ready");
  std::vector<pid_t> all;
  for (const char* const mark : {"/reading0", "/reading1"}) {
    all.push_back(start_child([&] {
      const auto catalog = *Catalog::open(path_, options);
      std::vector<std::thread> threads;
      std::atomic<int> reading = 0;
      for (int i = 0; i < 20; ++i) {
        threads.emplace_back([&] {
          for (;;) {
            ++reading;
            (void)catalog->list();
          }
        });
      }
      while (reading < 25) {
        ::usleep(500);
      }
      write_file(fixture_.path() + mark, "");
      return ::pause();
    }));
  }
  wait_for("/reading0");
  wait_for("/reading1");
  for (const pid_t child : all) {
    ::kill(child, SIGKILL);
    EXPECT_EQ(wait_for_child(child), 128 + SIGKILL);
  }
  write_file(fixture_.path() + "/killed", "");
  EXPECT_EQ(wait_for_child(keeper), 0);
}

TEST_F(CatalogTest, SurvivesAWriterThatWasKilled) {
  for (int round = 0; round < 20; ++round) {
    const pid_t writer = start_child([&] {
      const auto catalog = *Catalog::open(path_);
      for (uint32_t number = 0;; ++number) {
        (void)put(*catalog, number % 50, 2000);
      }
      return 0;
    });
    ::usleep(static_cast<useconds_t>(5'000 + round * 500));
    ::kill(writer, SIGKILL);
    EXPECT_EQ(wait_for_child(writer), 128 + SIGKILL);
    const auto catalog = open();
    const auto list = catalog->list();
    ASSERT_THAT(list, is_ok());
    for (const Record& found : *list) {
      EXPECT_EQ(catalog->tile_digests(found.file)->size(), found.tile_count);
    }
    ASSERT_THAT(put(*catalog, 1000), is_ok());
  }
  EXPECT_EQ(moved_aside().size(), 0U);
}

TEST_F(CatalogTest, MovesADamagedCatalogAsideAndBeginsAnew) {
  const struct {
    const char* what;
    std::function<void(const std::string&)> damage;
  } rows[] = {
      {"overwritten", [](const std::string& data) { write_file(data, std::string(100'000, 'x')); }},
      {"first page zeroed",
       [](const std::string& data) { write_file(data, std::string(8192, '\0') + read_file(data).substr(8192)); }},
      {"cut to two pages", [](const std::string& data) { ASSERT_EQ(::truncate(data.c_str(), 8192), 0); }},
      {"cut amid the trees", [](const std::string& data) { ASSERT_EQ(::truncate(data.c_str(), 20'480), 0); }},
      {"cut short of a header", [](const std::string& data) { ASSERT_EQ(::truncate(data.c_str(), 100), 0); }},
  };
  size_t aside = 0;
  for (const auto& row : rows) {
    SCOPED_TRACE(row.what);
    for (uint32_t number = 0; number < 50; ++number) {
      ASSERT_THAT(put(*open(), number), is_ok());
    }
    row.damage(path_ + "/data.mdb");
    {
      const auto catalog = open();
      ASSERT_NE(catalog, nullptr);
      EXPECT_EQ(catalog->list()->size(), 0U);
      ASSERT_THAT(put(*catalog, 7), is_ok());
    }
    EXPECT_EQ(open()->list()->size(), 1U);
    EXPECT_EQ(moved_aside().size(), ++aside);
  }
}

TEST_F(CatalogTest, ADamagedCatalogThatAnotherProcessHasOpenStaysWhereItIs) {
  ASSERT_THAT(put(*open(), 1), is_ok());
  const pid_t other = start_child([&] {
    const auto catalog = *Catalog::open(path_);
    write_file(fixture_.path() + "/ready", "");
    return ::pause();
  });
  wait_for("/ready");
  const std::string good = read_file(path_ + "/data.mdb");
  write_file(path_ + "/data.mdb", std::string(good.size(), 'x'));
  EXPECT_THAT(Catalog::open(path_), fails_with(ErrorKind::kCorrupt, {path_, "another process"}));
  EXPECT_EQ(moved_aside().size(), 0U);
  ::kill(other, SIGKILL);
  (void)wait_for_child(other);
  EXPECT_THAT(Catalog::open(path_), is_ok());
  EXPECT_EQ(moved_aside().size(), 1U);
}

TEST_F(CatalogTest, AnEmptyOrHalfMadeIndexIsBegunAnew) {
  write_file(path_ + "/data.mdb", "");
  EXPECT_THAT(put(*open(), 1), is_ok());
}

}  // namespace
}  // namespace qcache

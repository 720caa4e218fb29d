#include "core/store/catalog.h"

#include <gtest/gtest.h>
#include <lmdb.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "core/store/catalog_presence.h"
#include "tests/store/catalog_entries.h"
#include "tests/support/result_matchers.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

// What is LMDB's own of the catalog: files, processes, limits. What it promises as any does: catalog_contract_test.cpp.
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

TEST_F(CatalogTest, AFailureNamesTheCatalog) {
  EXPECT_THAT(open()->set_pinned("nothing", true), fails_with(ErrorKind::kNotFound, {"nothing", path_}));
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
  EXPECT_EQ(catalog->quality(record(1).file, record(1).sha256), std::vector<TensorQuality>());
  const std::vector<TensorQuality> figures = {{"a.q_proj", 100, 1, 64}};
  ASSERT_THAT(catalog->put(record(2), tiles(2), figures), is_ok());
  EXPECT_EQ(catalog->quality(record(2).file, record(2).sha256), figures);
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

TEST_F(CatalogTest, ReadersThatWereKilledAreForgottenAtOnceAndNothingGrowsForThem) {
  constexpr uint32_t kTiles = 500;  // four pages each
  {
    // Long records make listing slow enough that most threads are amid it when the kill comes.
    const auto catalog = open();
    for (uint32_t number = 0; number < 60; ++number) {
      Record long_record = record(number, 0);
      long_record.model_path.assign(4000, 'x');
      ASSERT_THAT(catalog->put(long_record, {}, {}), is_ok());
    }
  }
  std::vector<pid_t> all;
  for (const char* const mark : {"/reading0", "/reading1"}) {
    all.push_back(start_child([&] {
      const auto catalog = *Catalog::open(path_);
      std::vector<std::thread> threads;
      for (int i = 0; i < 20; ++i) {
        threads.emplace_back([&] {
          for (;;) {
            (void)catalog->list();
          }
        });
      }
      write_file(fixture_.path() + mark, "");
      return ::pause();
    }));
    wait_for(mark);
  }
  const auto catalog = open();
  const auto put_many = [&](uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) {
      ASSERT_THAT(put(*catalog, i % 10, kTiles), is_ok()) << i;
    }
  };
  ASSERT_NO_FATAL_FAILURE(put_many(30));
  for (const pid_t child : all) {
    ::kill(child, SIGKILL);
    EXPECT_EQ(wait_for_child(child), 128 + SIGKILL);
  }
  ASSERT_NO_FATAL_FAILURE(put_many(10));
  const uint64_t before = Env::posix().stat(path_ + "/data.mdb")->size_bytes;
  ASSERT_NO_FATAL_FAILURE(put_many(150));  // 2.5 MB
  EXPECT_LT(Env::posix().stat(path_ + "/data.mdb")->size_bytes, before + (uint64_t{512} << 10U));
  EXPECT_EQ(catalog->list()->size(), 60U);
}

// Every commit changes all records alike, so a list that shows two states is of no snapshot.
TEST_F(CatalogTest, ReadersSeeOneSnapshotWhileSeveralProcessesWrite) {
  {
    const auto catalog = open();
    for (uint32_t number = 0; number < 40; ++number) {
      ASSERT_THAT(put(*catalog, number, 40), is_ok());
    }
  }
  constexpr uint32_t kCommits = 40;
  std::vector<pid_t> children;
  for (int writer = 0; writer < 2; ++writer) {
    children.push_back(start_child([&] {
      const auto catalog = *Catalog::open(path_);
      std::vector<AccessUpdate> updates;
      for (uint32_t number = 0; number < 40; ++number) {
        updates.push_back({record(number).file, 1, 1});
      }
      for (uint32_t i = 0; i < kCommits; ++i) {
        if (!catalog->touch(updates).has_value()) {
          return 1;
        }
      }
      return 0;
    }));
  }
  const auto catalog = open();
  std::atomic<uint64_t> torn = 0;
  std::atomic<uint64_t> lists = 0;
  std::atomic<bool> done = false;
  std::vector<std::thread> readers;
  for (int i = 0; i < 4; ++i) {
    readers.emplace_back([&] {
      while (!done) {
        const auto list = catalog->list();
        const bool whole = list.has_value() && list->size() == 40 &&
                           std::all_of(list->begin(), list->end(),
                                       [&](const Record& record) { return record.hits == list->front().hits; });
        torn += whole ? 0U : 1U;
        ++lists;
      }
    });
  }
  for (const pid_t child : children) {
    EXPECT_EQ(wait_for_child(child), 0);
  }
  done = true;
  for (std::thread& reader : readers) {
    reader.join();
  }
  EXPECT_EQ(torn, 0U);
  EXPECT_GT(lists, 20U);
  EXPECT_EQ((*catalog->find(record(7).file))->hits, 2 * kCommits);
}

TEST_F(CatalogTest, AStoppedWriterKeepsOthersFromWritingForABoundedTimeAndNobodyFromReading) {
  ASSERT_THAT(put(*open(), 1), is_ok());
  CatalogOptions options;
  options.write_patience = std::chrono::milliseconds(100);
  options.read_patience = std::chrono::milliseconds(100);
  const pid_t writer = start_child([&] {
    const auto catalog = *Catalog::open(path_, options);
    write_file(fixture_.path() + "/ready", "");
    for (;;) {
      (void)put(*catalog, 2, 3000);
    }
    return 0;
  });
  wait_for("/ready");
  const auto catalog = *Catalog::open(path_, options);
  int stopped_amid = 0;
  int reads = 0;
  int rounds = 0;
  for (int round = 0; round < 40 && stopped_amid < 3; ++round) {
    ++rounds;
    ::kill(writer, SIGSTOP);
    ::usleep(5'000);
    const Status written = put(*catalog, 3);
    const auto found = catalog->find(record(1).file);
    reads += found.has_value() && found->has_value() ? 1 : 0;
    if (!written.has_value()) {
      ++stopped_amid;
      EXPECT_THAT(written, fails_with(ErrorKind::kBusy, {"locked", "users"}));
    }
    ::kill(writer, SIGCONT);
    ::usleep(static_cast<useconds_t>(round * 137 % 2'000));
  }
  EXPECT_GT(stopped_amid, 0);
  EXPECT_GE(reads, rounds - 1) << "but in the moment in which it lets its snapshot be seen";
  ::kill(writer, SIGKILL);
  (void)wait_for_child(writer);
  EXPECT_THAT(put(*catalog, 4), is_ok());
}

// An older qcache, as far as others see it: LMDB's locks, and its place in the file `users`.
class OlderBuild {
 public:
  explicit OlderBuild(const std::string& path) : presence_(std::move(*CatalogPresence::enter(path))) {
    EXPECT_EQ(mdb_env_create(&env_), 0);
    mdb_env_set_maxdbs(env_, 4);
    EXPECT_EQ(mdb_env_open(env_, path.c_str(), MDB_NOTLS, 0600), 0);
    EXPECT_THAT(presence_.settle(), is_ok());
  }
  ~OlderBuild() { mdb_env_close(env_); }
  OlderBuild(const OlderBuild&) = delete;
  OlderBuild& operator=(const OlderBuild&) = delete;

  // What it looks at before it uses a catalog, and "1" is all that it knows.
  std::string schema() {
    MDB_txn* txn = nullptr;
    MDB_dbi meta = 0;
    EXPECT_EQ(mdb_txn_begin(env_, nullptr, MDB_RDONLY, &txn), 0);
    EXPECT_EQ(mdb_dbi_open(txn, "meta", 0, &meta), 0);
    MDB_val key{6, const_cast<char*>("schema")};  // NOLINT(*-const-cast)
    MDB_val value{};
    EXPECT_EQ(mdb_get(txn, meta, &key, &value), 0);
    std::string schema(static_cast<const char*>(value.mv_data), value.mv_size);
    mdb_txn_abort(txn);
    return schema;
  }

 private:
  CatalogPresence presence_;
  MDB_env* env_ = nullptr;
};

TEST_F(CatalogTest, ACatalogOfAnOlderBuildGoesOnAndIsThenClosedToIt) {
  const std::string old = read_file(std::string(QCACHE_STORE_TEST_DATA) + "/catalog_schema_1.mdb");
  write_file(path_ + "/data.mdb", old);
  EXPECT_EQ(OlderBuild(path_).schema(), "1");
  const pid_t older = start_child([&] {
    const OlderBuild has_it_open(path_);
    write_file(fixture_.path() + "/ready", "");
    return ::pause();
  });
  wait_for("/ready");
  EXPECT_THAT(Catalog::open(path_), fails_with(ErrorKind::kBusy, {path_, "older qcache"}));
  EXPECT_EQ(read_file(path_ + "/data.mdb"), old);
  ::kill(older, SIGKILL);
  (void)wait_for_child(older);
  {
    const auto catalog = open();
    const auto list = catalog->list();
    ASSERT_EQ(list->size(), 2U);
    for (const Record& record : *list) {
      EXPECT_EQ(catalog->tile_digests(record.file)->size(), record.tile_count);
      EXPECT_EQ(record.pinned, record.dtype == "nf4");
    }
    ASSERT_THAT(put(*catalog, 1), is_ok());
    EXPECT_FALSE(StoreFixture::exists(path_ + "/lock.mdb"));
  }
  EXPECT_EQ(OlderBuild(path_).schema(), "2");
  EXPECT_EQ(open()->list()->size(), 3U);
  EXPECT_EQ(moved_aside().size(), 0U);
}

TEST_F(CatalogTest, ACatalogOfAnotherLmdbIsNotTouched) {
  ASSERT_THAT(put(*open(), 1), is_ok());
  std::string bytes = read_file(path_ + "/data.mdb");
  bytes[20] = 2;  // the first page's version
  write_file(path_ + "/data.mdb", bytes);
  ASSERT_THAT(Env::posix().remove(path_ + "/users"), is_ok());
  EXPECT_THAT(Catalog::open(path_), fails_with(ErrorKind::kUnsupported, {path_, "format 2"}));
  EXPECT_EQ(read_file(path_ + "/data.mdb"), bytes);
  EXPECT_EQ(Env::posix().list(path_)->size(), 1U);
  EXPECT_EQ(moved_aside().size(), 0U);
}

TEST_F(CatalogTest, PagesWithoutDatabasesAreDamageAndNotABeginning) {
  ASSERT_THAT(put(*open(), 1), is_ok());
  {
    MDB_env* env = nullptr;
    ASSERT_EQ(mdb_env_create(&env), 0);
    mdb_env_set_maxdbs(env, 4);
    ASSERT_EQ(mdb_env_open(env, path_.c_str(), 0, 0600), 0);
    MDB_txn* txn = nullptr;
    MDB_dbi records = 0;
    ASSERT_EQ(mdb_txn_begin(env, nullptr, 0, &txn), 0);
    ASSERT_EQ(mdb_dbi_open(txn, "records", 0, &records), 0);
    ASSERT_EQ(mdb_drop(txn, records, 1), 0);
    ASSERT_EQ(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
  }
  EXPECT_EQ(open()->list()->size(), 0U);
  EXPECT_EQ(moved_aside().size(), 1U);
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

TEST_F(CatalogTest, ADamagedCatalogIsMovedAsideAlsoFromWhoHasItOpen) {
  ASSERT_THAT(put(*open(), 1), is_ok());
  const pid_t other = start_child([&] {
    const auto catalog = *Catalog::open(path_);
    write_file(fixture_.path() + "/ready", "");
    while (!StoreFixture::exists(fixture_.path() + "/go")) {
      ::usleep(1000);
    }
    return put(*catalog, 2) ? 0 : 1;
  });
  wait_for("/ready");
  const std::string good = read_file(path_ + "/data.mdb");
  write_file(path_ + "/data.mdb", std::string(good.size(), 'x'));
  const auto catalog = Catalog::open(path_);
  ASSERT_THAT(catalog, is_ok());
  EXPECT_EQ(moved_aside().size(), 1U);
  ASSERT_THAT(put(**catalog, 3), is_ok());
  write_file(fixture_.path() + "/go", "");
  EXPECT_EQ(wait_for_child(other), 0);
  EXPECT_EQ((*catalog)->list()->size(), 2U) << "both go on with the new one";
  EXPECT_EQ(moved_aside().size(), 1U);
}

TEST_F(CatalogTest, AnEmptyOrHalfMadeIndexIsBegunAnew) {
  write_file(path_ + "/data.mdb", "");
  EXPECT_THAT(put(*open(), 1), is_ok());
  ASSERT_THAT(Env::posix().remove(path_ + "/data.mdb"), is_ok());
  write_file(path_ + "/data.mdb.new", "half");
  EXPECT_THAT(put(*open(), 2), is_ok());
  EXPECT_EQ(open()->list()->size(), 1U);
  // As an older build left it that was killed before its first commit.
  ASSERT_THAT(Env::posix().remove(path_ + "/data.mdb"), is_ok());
  {
    MDB_env* env = nullptr;
    ASSERT_EQ(mdb_env_create(&env), 0);
    ASSERT_EQ(mdb_env_open(env, path_.c_str(), 0, 0600), 0);
    mdb_env_close(env);
  }
  EXPECT_THAT(put(*open(), 3), is_ok());
  EXPECT_EQ(moved_aside().size(), 0U);
}

}  // namespace
}  // namespace qcache

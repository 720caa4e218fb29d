#include "core/store/catalog_examination.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "core/store/catalog.h"
#include "tests/store/store_fixture.h"
#include "tests/support/result_matchers.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

constexpr size_t kPage = 4096;

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  uint32_t operator()() { return static_cast<uint32_t>(engine_()); }

 private:
  std::mt19937 engine_;
};

// Catalogs that several kinds of work have passed over.
class CatalogExaminationTest : public testing::Test {
 protected:
  void SetUp() override { make_directories(path_); }

  std::shared_ptr<Catalog> open() { return std::move(*Catalog::open(path_)); }
  std::string data() const { return path_ + "/data.mdb"; }
  CatalogFinding examine() { return std::move(*examine_catalog(Env::posix(), data())); }

  static Record record(uint32_t number, uint32_t tiles) {
    const FillingKey key = StoreFixture::key(number);
    Record record = StoreFixture::draft(key);
    record.file = key.file;
    record.tile_count = tiles;
    return record;
  }
  // One commit: a new or changed record, one less, or new times. Digests long enough for pages of their own are among
  // them.
  static Status work(Catalog& catalog, Random& random) {
    const uint32_t number = random() % 60;
    switch (random() % 4) {
      case 0:
        return catalog.erase(record(number, 0).file);
      case 1: {
        std::vector<AccessUpdate> updates;
        for (uint32_t i = 0; i < 60; i += 1 + random() % 9) {
          updates.push_back({record(i, 0).file, static_cast<int64_t>(random()), 1});
        }
        return catalog.touch(updates);
      }
      default: {
        const uint32_t tiles = random() % 3 == 0 ? 100 + random() % 800 : random() % 40;
        return catalog.put(record(number, tiles), std::vector<Sha256Digest>(tiles), {});
      }
    }
  }
  // In a process of its own: the catalog is opened, read, written and emptied. Its exit status tells what became of it.
  enum Outcome { kUsed = 0, kFailed = 1, kMovedAside = 2 };
  int use(Random& random) {
    const uint32_t seed = random();
    return run_child([&] {
      Random own(seed);
      const auto catalog = Catalog::open(path_);
      if (!catalog.has_value()) {
        return kFailed;
      }
      const std::vector<std::string> names = *Env::posix().list(fixture_.path());
      const bool aside = std::any_of(names.begin(), names.end(),
                                     [](const std::string& name) { return name.starts_with("index.corrupt-"); });
      for (int i = 0; i < 8; ++i) {
        if (!work(**catalog, own).has_value()) {
          return kFailed;
        }
      }
      const auto list = (*catalog)->list();
      if (!list.has_value()) {
        return kFailed;
      }
      for (const Record& found : *list) {
        if (!(*catalog)->tile_digests(found.file).has_value() || !(*catalog)->erase(found.file).has_value()) {
          return kFailed;
        }
      }
      return aside ? kMovedAside : kUsed;
    });
  }
  void begin_again(const std::string& bytes) {
    const std::vector<std::string> names = *Env::posix().list(fixture_.path());
    for (const std::string& name : names) {
      if (name.starts_with("index")) {
        std::filesystem::remove_all(fixture_.path() + '/' + name);
      }
    }
    make_directories(path_);
    write_file(data(), bytes);
  }

  StoreFixture fixture_;
  const std::string path_ = fixture_.path() + "/index";
};

TEST_F(CatalogExaminationTest, FindsEveryCatalogSoundThatWasClosedOrLeftByAKilledProcess) {
  EXPECT_EQ(examine().health, CatalogHealth::kNone);
  Random random(1);
  for (int round = 0; round < 40; ++round) {
    if (round % 2 == 0) {
      const auto catalog = open();
      for (int i = 0; i < 12; ++i) {
        ASSERT_THAT(work(*catalog, random), is_ok());
      }
    } else {
      const pid_t child = start_child([&] {
        for (const auto catalog = open();;) {
          (void)work(*catalog, random);
        }
        return 0;
      });
      ::usleep(static_cast<useconds_t>(random() % 30'000));
      ::kill(child, SIGKILL);
      (void)wait_for_child(child);
    }
    const CatalogFinding found = examine();
    ASSERT_EQ(found.health, CatalogHealth::kSound) << found.reason << " in round " << round;
  }
}

TEST_F(CatalogExaminationTest, FindsPagesThatAreNotWhatTheyMustBe) {
  Random random(2);
  {
    const auto catalog = open();
    for (int i = 0; i < 60; ++i) {
      ASSERT_THAT(work(*catalog, random), is_ok());
    }
  }
  const std::string good = read_file(data());
  const size_t pages = good.size() / kPage;
  ASSERT_GT(pages, 20U);
  std::vector<size_t> in_use;  // pages whose loss shows
  for (size_t page = 0; page < pages; ++page) {
    std::string bytes = good;
    std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(page * kPage), kPage, '\0');
    write_file(data(), bytes);
    if (examine().health == CatalogHealth::kDamaged) {
      in_use.push_back(page);
    }
  }
  EXPECT_GT(in_use.size(), 8U);
  for (int i = 0; i < 400; ++i) {
    const size_t page = in_use[random() % in_use.size()];
    const size_t other = in_use[random() % in_use.size()];
    if (page > 1 && other != page) {
      std::string bytes = good;
      std::copy_n(good.begin() + static_cast<ptrdiff_t>(other * kPage), kPage,
                  bytes.begin() + static_cast<ptrdiff_t>(page * kPage));
      write_file(data(), bytes);
      EXPECT_EQ(examine().health, CatalogHealth::kDamaged) << page << " is " << other;
    }
  }
  const struct {
    const char* what;
    std::string bytes;
    CatalogHealth health;
  } rows[] = {
      {"as it was", good, CatalogHealth::kSound},
      {"empty", "", CatalogHealth::kNone},
      {"cut", good.substr(0, in_use.back() * kPage), CatalogHealth::kDamaged},
      {"cut amid the first page", good.substr(0, 100), CatalogHealth::kDamaged},
      {"cut to the first two pages", good.substr(0, 2 * kPage), CatalogHealth::kDamaged},
      {"zeros", std::string(good.size(), '\0'), CatalogHealth::kDamaged},
      {"text", std::string(good.size(), 'x'), CatalogHealth::kDamaged},
  };
  for (const auto& row : rows) {
    write_file(data(), row.bytes);
    EXPECT_EQ(examine().health, row.health) << row.what << ": " << examine().reason;
  }
}

// Whatever bits are wrong: no crash, no endless walk; and what is found sound, LMDB can use.
TEST_F(CatalogExaminationTest, SurvivesArbitraryBytes) {
  Random random(3);
  {
    const auto catalog = open();
    for (int i = 0; i < 40; ++i) {
      ASSERT_THAT(work(*catalog, random), is_ok());
    }
  }
  const std::string good = read_file(data());
  int sound = 0;
  for (int round = 0; round < 600; ++round) {
    std::string bytes = good;
    for (uint32_t change = 0; change <= random() % 4; ++change) {
      const size_t page = random() % (good.size() / kPage);
      const size_t at = random() % 3 == 0 ? random() % kPage : random() % 96;  // heads mostly
      bytes[page * kPage + at] = static_cast<char>(random());
    }
    write_file(data(), bytes);
    const CatalogFinding found = examine();
    sound += found.health == CatalogHealth::kSound ? 1 : 0;
    if (found.health == CatalogHealth::kSound && round % 20 == 0) {
      begin_again(bytes);
      EXPECT_EQ(use(random), kUsed) << "round " << round;
    }
  }
  EXPECT_GT(sound, 10);
  EXPECT_LT(sound, 590);
}

// As `cp`, rsync and backups copy a directory in use: page after page, with commits between.
TEST_F(CatalogExaminationTest, ASlowCopyOfALiveCatalogEndsNobody) {
  Random random(4);
  int outcomes[3] = {};
  for (int round = 0; round < 40; ++round) {
    begin_again("");
    std::string copy;
    {
      const auto catalog = open();
      for (uint32_t i = 0; i < 10 + random() % 10; ++i) {
        ASSERT_THAT(work(*catalog, random), is_ok());
      }
      const size_t at_once = 1 + random() % 12;
      for (std::string now = read_file(data()); copy.size() < now.size(); now = read_file(data())) {
        copy += now.substr(copy.size(), at_once * kPage);
        if (random() % 4 != 0) {
          ASSERT_THAT(work(*catalog, random), is_ok());
        }
      }
    }
    begin_again(copy);
    const int outcome = use(random);
    ASSERT_TRUE(outcome == kUsed || outcome == kMovedAside) << outcome << " in round " << round;
    ++outcomes[outcome];
  }
  EXPECT_GT(outcomes[kMovedAside], 5);
}

// As a disk leaves it that loses power with writes under way: any page may be of any moment.
TEST_F(CatalogExaminationTest, LostWritesEndNobody) {
  Random random(5);
  int outcomes[3] = {};
  std::vector<std::string> moments;
  for (int round = 0; round < 80; ++round) {
    if (round % 10 == 0) {
      moments.clear();
      begin_again("");
      const auto catalog = open();
      for (uint32_t moment = 0; moment < 3; ++moment) {
        for (uint32_t i = 0; i < (moment == 0 ? 30U : 1 + random() % 4); ++i) {
          ASSERT_THAT(work(*catalog, random), is_ok());
        }
        moments.push_back(read_file(data()));
      }
    }
    std::string torn = moments.back();
    const uint32_t lost_of_100 = 1 + random() % 60;
    for (size_t page = 0; page < torn.size() / kPage; ++page) {
      const std::string& old = moments[random() % 2];
      if (random() % 100 < lost_of_100 && (page + 1) * kPage <= old.size()) {
        std::copy_n(old.begin() + static_cast<ptrdiff_t>(page * kPage), kPage,
                    torn.begin() + static_cast<ptrdiff_t>(page * kPage));
      }
    }
    begin_again(torn);
    const int outcome = use(random);
    ASSERT_TRUE(outcome == kUsed || outcome == kMovedAside) << outcome << " in round " << round;
    ++outcomes[outcome];
  }
  EXPECT_GT(outcomes[kMovedAside], 10);
}

TEST_F(CatalogExaminationTest, TellsOtherFormatsFromDamage) {
  { (void)open(); }
  const std::string good = read_file(data());
  const auto health = [&](size_t at, const std::string& bytes) {
    std::string changed = good;
    changed.replace(at, bytes.size(), bytes);
    write_file(data(), changed);
    return examine().health;
  };
  const std::string magic = good.substr(16, 4);
  const std::string reversed(magic.rbegin(), magic.rend());
  EXPECT_EQ(health(20, std::string("\2\0\0\0", 4)), CatalogHealth::kForeign);
  EXPECT_EQ(health(20, std::string("\xe7\3\0\0", 4)), CatalogHealth::kForeign);
  EXPECT_EQ(health(16, reversed), CatalogHealth::kForeign);
  EXPECT_EQ(health(0, std::string(24, '\0') + magic + std::string("\2\0\0\0", 4)), CatalogHealth::kForeign);
  EXPECT_EQ(health(0, std::string(12, '\0') + magic + std::string("\1\0\0\0", 4)), CatalogHealth::kForeign);
  EXPECT_EQ(health(16, "xxxx"), CatalogHealth::kDamaged);
  EXPECT_EQ(health(0, ""), CatalogHealth::kSound);
}

}  // namespace
}  // namespace qcache

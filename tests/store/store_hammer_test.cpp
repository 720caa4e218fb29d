#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "core/store/aging.h"
#include "tests/store/store_fixture.h"
#include "tests/support/result_matchers.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

// For ThreadSanitizer above all: every call of the store at once, from threads of one process.
TEST(StoreHammer, ThreadsThatDoEverythingAtOnceNeverServeWrongBytes) {
  const StoreFixture fixture;
  const auto store = fixture.open();
  std::atomic<uint32_t> served = 0;
  std::atomic<uint32_t> wrong = 0;
  std::atomic<uint32_t> failed = 0;
  const auto work = [&](unsigned seed) {
    std::minstd_rand random(seed);
    for (int round = 0; round < 60; ++round) {
      const FillingKey key = StoreFixture::key(static_cast<uint32_t>(random() % 3));
      switch (random() % 8) {
        case 0:
          failed += store->drop(key.file, "test").has_value() ? 0U : 1U;
          break;
        case 1:
          if (const std::string path = store->directory().sealed_path(key.file); StoreFixture::exists(path)) {
            try {
              set_mtime(path, 1);
            } catch (const std::exception&) {
              break;  // another thread has just removed it
            }
            failed += store->demote(key.file).has_value() ? 0U : 1U;
          }
          break;
        case 2:
          failed += store->entries().has_value() && store->totals().has_value() ? 0U : 1U;
          break;
        case 3:
          failed += apply_aging(*store, {std::nullopt, 5'000}, random() % 2 == 0).has_value() ? 0U : 1U;
          break;
        case 4:
          failed += store->catalog().touch(std::vector<AccessUpdate>{{key.file, round, 1}}).has_value() ? 0U : 1U;
          break;
        default: {
          const auto sealed = StoreFixture::ensure_sealed(*store, key);
          failed += sealed.has_value() || sealed.error().kind == ErrorKind::kBusy ? 0U : 1U;
          if (sealed.has_value()) {
            ++served;
            wrong += StoreFixture::bytes_of(sealed->fd.get()) == StoreFixture::content(key) ? 0U : 1U;
          }
        }
      }
    }
  };
  std::vector<std::thread> threads;
  for (unsigned seed = 1; seed <= 4; ++seed) {
    threads.emplace_back(work, seed);
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(wrong, 0U);
  EXPECT_EQ(failed, 0U);
  EXPECT_GT(served, 20U);
  EXPECT_EQ(StoreFixture::unsoundness(*store), "");
}

TEST(StoreHammer, ThreadsMarkAndSealOneFillingFile) {
  const StoreFixture fixture;
  const auto store = fixture.open();
  const FillingKey key = StoreFixture::key(0, 1, 100 * StoreFixture::kTileBytes);
  const auto filling = *FillingFile::open(store->env(), store->directory(), key);
  std::atomic<uint32_t> seals = 0;
  const auto work = [&](uint32_t first) {
    for (uint32_t i = 0; i < key.tile_count; ++i) {
      const uint32_t tile = (first + i) % key.tile_count;
      const std::string bytes = StoreFixture::tile_content(key, tile);
      EXPECT_THAT(
          store->env().write_at(filling->fd(), std::as_bytes(std::span(bytes)), tile * StoreFixture::kTileBytes),
          is_ok());
      EXPECT_THAT(filling->mark(tile, StoreFixture::right_mark(key, tile)), is_ok());
      (void)filling->marked_count();
    }
    const auto sealed = store->seal(*filling, StoreFixture::draft(key));
    EXPECT_TRUE(sealed.has_value() || sealed.error().kind == ErrorKind::kBusy);
    seals += sealed.has_value() && sealed->has_value() ? 1U : 0U;
  };
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < 4; ++i) {
    threads.emplace_back(work, i * 25);
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(seals, 1U);
}

}  // namespace
}  // namespace qcache

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <vector>

#include "tests/store/store_fixture.h"
#include "tests/support/result_matchers.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

// Counters that child processes share with the test.
struct Shared {
  std::atomic<uint32_t> tiles_made;
  std::atomic<uint32_t> seals;
  std::atomic<uint32_t> refusals;
  std::atomic<uint32_t> arrived;
};

class SharedCounters {
 public:
  SharedCounters()
      : counters_(static_cast<Shared*>(
            ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {}
  ~SharedCounters() { ::munmap(counters_, sizeof(Shared)); }
  SharedCounters(const SharedCounters&) = delete;
  SharedCounters& operator=(const SharedCounters&) = delete;
  Shared* operator->() const { return counters_; }

 private:
  Shared* counters_;
};

// Makes the file together with others, as the engine does it: look at the mark, lock, look again, make.
int make_together(const StoreFixture& fixture, const SharedCounters& counters, const FillingKey& key,
                  uint32_t company) {
  const auto store = fixture.open();
  const auto filling = FillingFile::open(store->env(), store->directory(), key);
  if (!filling.has_value()) {
    return 1;
  }
  ++counters->arrived;
  while (counters->arrived < company) {
    ::usleep(100);
  }
  for (uint32_t tile = 0; tile < key.tile_count; ++tile) {
    if ((*filling)->mark_of(tile).has_value()) {
      continue;
    }
    if (!(*filling)->lock_tile(tile, std::chrono::seconds(60))) {
      return 2;
    }
    if (!(*filling)->mark_of(tile).has_value()) {
      const std::string bytes = StoreFixture::tile_content(key, tile);
      if (!store->env()
               .write_at((*filling)->fd(), std::as_bytes(std::span(bytes)), tile * StoreFixture::kTileBytes)
               .has_value()) {
        return 3;
      }
      ++counters->tiles_made;
      if (!(*filling)->mark(tile, StoreFixture::right_mark(key, tile)).has_value()) {
        return 4;
      }
    }
    (*filling)->unlock_tile(tile);
  }
  const auto sealed = store->seal(**filling, StoreFixture::draft(key));
  if (!sealed.has_value()) {
    return 4;
  }
  ++(sealed->has_value() ? counters->seals : counters->refusals);
  SealedFile found;
  const auto state = store->find_sealed(key.file, key.recipe, found);
  return state == SealedState::kTrusted && StoreFixture::bytes_of(found.fd.get()) == StoreFixture::content(key) ? 0 : 5;
}

TEST(StoreProcesses, MountsThatShareADirectoryMakeEachTileOnceAndSealOnce) {
  for (int round = 0; round < 5; ++round) {
    const StoreFixture fixture;
    const SharedCounters counters;
    const FillingKey key = StoreFixture::key(0, 1, 200 * StoreFixture::kTileBytes);
    constexpr uint32_t kCompany = 4;
    std::vector<pid_t> children;
    for (uint32_t i = 0; i < kCompany; ++i) {
      children.push_back(start_child([&] { return make_together(fixture, counters, key, kCompany); }));
    }
    for (const pid_t child : children) {
      EXPECT_EQ(wait_for_child(child), 0);
    }
    EXPECT_EQ(counters->tiles_made, key.tile_count);
    EXPECT_EQ(counters->seals, 1U);
    EXPECT_EQ(counters->refusals, kCompany - 1);
    const auto store = fixture.open();
    EXPECT_EQ(store->catalog().list()->size(), 1U);
    EXPECT_EQ(StoreFixture::unsoundness(*store), "");
    EXPECT_EQ(store->env().list(store->directory().filling_directory())->size(), 1U);
  }
}

TEST(StoreProcesses, AKilledMakerLeavesItsTilesToTheNext) {
  const StoreFixture fixture;
  const FillingKey key = StoreFixture::key(0, 1, 500 * StoreFixture::kTileBytes);
  const pid_t first = start_child([&] {
    const auto store = fixture.open();
    const auto filling = *FillingFile::open(store->env(), store->directory(), key);
    for (uint32_t tile = 0; tile < 300; ++tile) {
      const std::string bytes = StoreFixture::tile_content(key, tile);
      (void)store->env().write_at(filling->fd(), std::as_bytes(std::span(bytes)), tile * StoreFixture::kTileBytes);
      (void)filling->mark(tile, StoreFixture::right_mark(key, tile));
    }
    ::raise(SIGKILL);
    return 0;
  });
  ASSERT_EQ(wait_for_child(first), 128 + SIGKILL);
  const auto store = fixture.open();
  const auto filling = *FillingFile::open(store->env(), store->directory(), key);
  EXPECT_EQ(filling->marked_count(), 300U);
  EXPECT_EQ(StoreFixture::fill(store->env(), *filling), 200U);
  EXPECT_TRUE(store->seal(*filling, StoreFixture::draft(key))->has_value());
}

TEST(StoreProcesses, ManyThatSealDropAndDemoteNeverServeWrongBytes) {
  const StoreFixture fixture;
  std::vector<pid_t> children;
  for (unsigned id = 0; id < 3; ++id) {
    children.push_back(start_child([&, id] {
      const auto store = fixture.open();
      for (unsigned round = 0; round < 60; ++round) {
        const FillingKey key = StoreFixture::key(0, static_cast<uint8_t>(1 + (round + id) % 2));
        if ((round + id) % 7 == 0) {
          if (!store->drop(key.file, "test").has_value()) {
            return 1;
          }
        } else if ((round + id) % 5 == 0) {
          // Changes the times only; the file may be gone, which is as good.
          [[maybe_unused]] const int done = ::truncate(store->directory().sealed_path(key.file).c_str(), 4'500);
          if (!store->demote(key.file).has_value()) {
            return 2;
          }
        }
        SealedFile found;
        const auto state = store->find_sealed(key.file, key.recipe, found);
        if (!state.has_value() && state.error().kind != ErrorKind::kBusy) {
          return 3;
        }
        if (state == SealedState::kTrusted && StoreFixture::bytes_of(found.fd.get()) != StoreFixture::content(key)) {
          return 4;
        }
        const auto filling = FillingFile::open(store->env(), store->directory(), key);
        if (!filling.has_value() || !StoreFixture::fill(store->env(), **filling).has_value()) {
          return 5;
        }
        const auto sealed = store->seal(**filling, StoreFixture::draft(key));
        if (!sealed.has_value() && sealed.error().kind != ErrorKind::kBusy) {
          return 6;
        }
      }
      return 0;
    }));
  }
  for (const pid_t child : children) {
    EXPECT_EQ(wait_for_child(child), 0);
  }
  const auto store = fixture.open();
  EXPECT_THAT(StoreFixture::ensure_sealed(*store, StoreFixture::key()), is_ok());
  EXPECT_EQ(StoreFixture::unsoundness(*store), "");
}

}  // namespace
}  // namespace qcache

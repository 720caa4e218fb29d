// The engine's parts that need no files: pool, read-ahead, names, error log.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>

#include "core/engine/artifact_name.h"
#include "core/engine/error_log.h"
#include "core/engine/read_ahead.h"
#include "core/engine/readers.h"
#include "core/engine/worker_pool.h"

namespace qcache {
namespace {

TEST(WorkerPool, RunsTheMostUrgentFirstAndEqualsInOrder) {
  WorkerPool pool(1);
  std::promise<void> gate;
  std::shared_future<void> open(gate.get_future());
  std::promise<void> entered;
  pool.submit(Priority::kDemand, [&] {
    entered.set_value();
    open.wait();
  });
  entered.get_future().wait();  // the one thread is busy: what follows is queued
  std::vector<int> order;
  std::promise<void> done;
  pool.submit(Priority::kFill, [&] {
    order.push_back(5);
    done.set_value();
  });
  pool.submit(Priority::kReadAhead, [&] { order.push_back(3); });
  pool.submit(Priority::kDemand, [&] { order.push_back(1); });
  pool.submit(Priority::kReadAhead, [&] { order.push_back(4); });
  pool.submit(Priority::kDemand, [&] { order.push_back(2); });
  gate.set_value();
  done.get_future().wait();
  EXPECT_THAT(order, testing::ElementsAre(1, 2, 3, 4, 5));
}

TEST(WorkerPool, StopDropsWhatHasNotBegun) {
  std::atomic<int> ran{0};
  std::promise<void> entered;
  std::promise<void> gate;
  WorkerPool pool(1);
  pool.submit(Priority::kDemand, [&] {
    entered.set_value();
    gate.get_future().wait();
    ++ran;
  });
  entered.get_future().wait();
  pool.submit(Priority::kDemand, [&] { ++ran; });
  std::thread stopper([&] { pool.stop(); });
  gate.set_value();
  stopper.join();
  pool.submit(Priority::kDemand, [&] { ++ran; });
  EXPECT_LE(ran, 2);  // the second may have begun before stop() took the queues; the third never runs
  EXPECT_GE(ran, 1);
}

TEST(ReadAhead, JumpingReaderGetsNothing) {
  ReadAhead ahead;
  for (const uint32_t tile : {50U, 10U, 90U, 11U, 80U}) {
    const TileSpan got = ahead.after_read({tile, tile + 1}, 100);
    EXPECT_EQ(got.first, got.end) << tile;
  }
}

TEST(ReadAhead, WindowDoublesWithEveryTileCrossed) {
  ReadAhead ahead;
  std::vector<uint32_t> windows;
  for (uint32_t tile = 0; tile < 8; ++tile) {
    const TileSpan got = ahead.after_read({tile, tile + 1}, 1000);
    windows.push_back(got.end - got.first);
    EXPECT_EQ(got.first, tile + 1);
    // More reads inside the tile change nothing.
    EXPECT_EQ(ahead.after_read({tile, tile + 1}, 1000), got);
  }
  EXPECT_THAT(windows, testing::ElementsAre(0, 2, 4, 8, 16, 32, 32, 32));
}

TEST(ReadAhead, EndsAtTheLastTile) {
  ReadAhead ahead;
  ahead.after_read({0, 1}, 4);
  EXPECT_EQ(ahead.after_read({1, 2}, 4), (TileSpan{2, 4}));
  EXPECT_EQ(ahead.after_read({2, 4}, 4), (TileSpan{4, 4}));
}

TEST(Readers, OnlyThoseWhoStayWantTheRest) {
  const Readers::Time start{};
  Readers readers;
  readers.add();
  EXPECT_FALSE(readers.want_the_rest(start + 10 * Readers::kStays)) << "open, and never read";
  readers.on_read(start);
  readers.add();
  readers.remove();
  EXPECT_FALSE(readers.want_the_rest(start + Readers::kStays - std::chrono::milliseconds(1)));
  EXPECT_TRUE(readers.want_the_rest(start + Readers::kStays));
  readers.remove();
  EXPECT_FALSE(readers.want_the_rest(start + Readers::kStays));
  readers.add();
  readers.on_read(start + Readers::kStays);
  EXPECT_FALSE(readers.want_the_rest(start + Readers::kStays)) << "another reader, later";
}

TEST(Readers, OneWhoIsExpectedWantsTheRestForAWhile) {
  const Readers::Time start{};
  Readers readers;
  EXPECT_FALSE(readers.want_the_rest(start)) << "nobody is expected";
  readers.expect(start);
  EXPECT_TRUE(readers.want_the_rest(start)) << "nobody has opened it yet";
  readers.add();
  readers.remove();
  EXPECT_TRUE(readers.want_the_rest(start)) << "a program may open a file more than once";
  EXPECT_TRUE(readers.want_the_rest(start + Readers::kComes - std::chrono::milliseconds(1)));
  EXPECT_FALSE(readers.want_the_rest(start + Readers::kComes)) << "it did not come";
}

TEST(Readers, SealingWaitsUntilTheyAreQuiet) {
  using std::chrono::milliseconds;
  const Readers::Time start{};
  Readers readers;
  EXPECT_FALSE(readers.hold_back_sealing(start, start)) << "nobody has it open";
  readers.add();
  EXPECT_FALSE(readers.hold_back_sealing(start, start)) << "nobody reads it";
  readers.on_read(start);
  EXPECT_TRUE(readers.hold_back_sealing(start + milliseconds(999), start));
  readers.on_read(start + milliseconds(999));
  EXPECT_TRUE(readers.hold_back_sealing(start + milliseconds(1998), start));
  EXPECT_FALSE(readers.hold_back_sealing(start + milliseconds(1999), start));
  readers.on_read(start + milliseconds(2000));
  EXPECT_TRUE(readers.hold_back_sealing(start + milliseconds(2000), start));
  readers.remove();
  EXPECT_FALSE(readers.hold_back_sealing(start + milliseconds(2000), start)) << "they have closed it";
}

TEST(Readers, OneWhoNeverStopsReadingHoldsSealingBackForSoLongOnly) {
  const Readers::Time complete{};
  Readers readers;
  readers.add();
  const Readers::Time late = complete + Readers::kSealPatience;
  readers.on_read(late - std::chrono::milliseconds(1));
  EXPECT_TRUE(readers.hold_back_sealing(late - std::chrono::milliseconds(1), complete));
  readers.on_read(late);
  EXPECT_FALSE(readers.hold_back_sealing(late, complete));
}

TEST(ErrorLog, CountsEqualFailuresAndKeepsTheNewestFirst) {
  ErrorLog log;
  const Error disk{ErrorKind::kIo, 5, "disk"};
  log.add("m", disk, 10);
  log.add("n", disk, 20);
  log.add("m", disk, 30);
  const auto recent = log.recent();
  ASSERT_EQ(recent.size(), 2U);
  EXPECT_EQ(recent[0].subject, "m");
  EXPECT_EQ(recent[0].count, 2U);
  EXPECT_EQ(recent[0].first_ns, 10);
  EXPECT_EQ(recent[0].last_ns, 30);
  EXPECT_EQ(recent[1].subject, "n");
}

TEST(ErrorLog, IsBounded) {
  ErrorLog log;
  for (int i = 0; i < 1000; ++i) {
    log.add(fmt::format("m{}", i), Error{ErrorKind::kIo, 0, "x"}, i);
  }
  EXPECT_EQ(log.recent().size(), 64U);
  EXPECT_EQ(log.recent().front().subject, "m999");
}

}  // namespace
}  // namespace qcache

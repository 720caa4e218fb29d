#include "core/engine/tile_schedule.h"

#include <gmock/gmock.h>

namespace qcache {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using Time = TileSchedule::Time;

constexpr Time kStart = std::chrono::seconds(100);
const Error kBroken{ErrorKind::kIo, 0, "broken"};
const Error kFull{ErrorKind::kNoSpace, 0, "full"};

/// Queues and makes a tile.
void make(TileSchedule& schedule, uint32_t tile, Priority priority = Priority::kDemand) {
  schedule.queued(tile, priority);
  ASSERT_TRUE(schedule.begin(tile, priority, true, kStart));
  schedule.made(tile, priority);
}

/// Queues and makes what the background fill wants next, until it wants nothing; in which order.
std::vector<uint32_t> fill(TileSchedule& schedule, Time now) {
  std::vector<uint32_t> order;
  while (const auto tile = schedule.next_to_fill(1, now)) {
    schedule.queued(*tile, Priority::kFill);
    EXPECT_TRUE(schedule.begin(*tile, Priority::kFill, false, now));
    schedule.made(*tile, Priority::kFill);
    order.push_back(*tile);
  }
  return order;
}

TEST(TileSchedule, KnowsWhatIsThere) {
  TileSchedule schedule(4, kStart);
  EXPECT_THAT(schedule.missing({{0, 2}, {3, 4}}), ElementsAre(0, 1, 3));
  make(schedule, 1);
  EXPECT_THAT(schedule.missing({{0, 2}, {3, 4}}), ElementsAre(0, 3));
  for (const uint32_t tile : {0U, 2U, 3U}) {
    EXPECT_FALSE(schedule.all_ready());
    make(schedule, tile);
  }
  EXPECT_TRUE(schedule.all_ready());
  EXPECT_THAT(schedule.missing({{0, 4}}), IsEmpty());
  schedule.lost(2);
  EXPECT_FALSE(schedule.all_ready());
  EXPECT_THAT(schedule.missing({{0, 4}}), ElementsAre(2));
}

TEST(TileSchedule, AFileWithoutTilesIsThereFromTheStart) {
  TileSchedule schedule(0, kStart);
  EXPECT_TRUE(schedule.all_ready());
  schedule.set_warm(true, kStart);
  EXPECT_FALSE(schedule.next_to_fill(2, kStart));
}

TEST(TileSchedule, OfTwoJobsForATileTheFirstMakesIt) {
  TileSchedule schedule(2, kStart);
  schedule.queued(0, Priority::kReadAhead);
  EXPECT_TRUE(schedule.is_open(0));
  EXPECT_FALSE(schedule.is_absent(0));
  schedule.queued(0, Priority::kDemand);
  EXPECT_TRUE(schedule.begin(0, Priority::kDemand, true, kStart));
  EXPECT_FALSE(schedule.is_open(0)) << "it is being made";
  EXPECT_FALSE(schedule.begin(0, Priority::kReadAhead, true, kStart));
  schedule.made(0, Priority::kDemand);
  EXPECT_FALSE(schedule.begin(0, Priority::kReadAhead, true, kStart)) << "it is there";
  EXPECT_FALSE(schedule.is_open(0));
}

TEST(TileSchedule, WhatNobodyWantsAnyMoreIsNotMade) {
  TileSchedule schedule(2, kStart);
  schedule.add_reader(false, kStart);
  schedule.queued(0, Priority::kDemand);
  schedule.queued(1, Priority::kReadAhead);
  EXPECT_FALSE(schedule.begin(0, Priority::kDemand, false, kStart)) << "the read was interrupted";
  EXPECT_TRUE(schedule.is_absent(0));
  schedule.remove_reader(kStart);
  EXPECT_FALSE(schedule.begin(1, Priority::kReadAhead, false, kStart)) << "its reader is gone";
  schedule.queued(0, Priority::kDemand);
  schedule.abandon();
  EXPECT_FALSE(schedule.begin(0, Priority::kDemand, true, kStart)) << "the mount ends";
}

TEST(TileSchedule, FillsInFileOrderWhatIsNotThere) {
  TileSchedule schedule(6, kStart);
  make(schedule, 1);
  make(schedule, 4);
  EXPECT_THAT(fill(schedule, kStart), IsEmpty()) << "nobody wants it";
  schedule.set_warm(true, kStart);
  EXPECT_THAT(fill(schedule, kStart), ElementsAre(0, 2, 3, 5));
  EXPECT_TRUE(schedule.all_ready());
}

TEST(TileSchedule, FillsNoMoreAtOnceThanThereAreWorkers) {
  TileSchedule schedule(6, kStart);
  schedule.set_warm(true, kStart);
  for (const uint32_t expected : {0U, 1U}) {
    ASSERT_EQ(schedule.next_to_fill(2, kStart), expected);
    schedule.queued(expected, Priority::kFill);
  }
  EXPECT_FALSE(schedule.next_to_fill(2, kStart));
  ASSERT_TRUE(schedule.begin(0, Priority::kFill, false, kStart));
  EXPECT_FALSE(schedule.next_to_fill(2, kStart)) << "it is being made";
  schedule.made(0, Priority::kFill);
  EXPECT_EQ(schedule.next_to_fill(2, kStart), 2U);
  schedule.set_warm(false, kStart);
  EXPECT_FALSE(schedule.begin(1, Priority::kFill, false, kStart));
  schedule.set_warm(true, kStart);
  EXPECT_THAT(fill(schedule, kStart), ElementsAre(2, 3, 4, 5, 1)) << "what was skipped is not under way any more";
}

TEST(TileSchedule, ReadersWhoStayAndReadersWhoAreExpectedWantAllOfIt) {
  TileSchedule schedule(2, kStart);
  schedule.add_reader(false, kStart);
  (void)schedule.after_read({0, 1}, kStart);
  EXPECT_FALSE(schedule.wants_fill(kStart + Readers::kStays - std::chrono::nanoseconds(1)));
  EXPECT_TRUE(schedule.wants_fill(kStart + Readers::kStays));
  schedule.remove_reader(kStart + Readers::kStays);
  EXPECT_FALSE(schedule.wants_fill(kStart + Readers::kStays));
  EXPECT_EQ(schedule.last_use(), kStart + Readers::kStays);

  schedule.expect_reader(kStart);
  EXPECT_TRUE(schedule.wants_fill(kStart));
  EXPECT_FALSE(schedule.wants_fill(kStart + Readers::kComes));
  schedule.expect_reader(kStart);
  schedule.drop();
  EXPECT_FALSE(schedule.wants_fill(kStart)) << "its names are gone";
}

TEST(TileSchedule, AFailureEndsTheFillUntilSomebodyBeginsAfresh) {
  TileSchedule schedule(3, kStart);
  schedule.set_warm(true, kStart);
  schedule.queued(0, Priority::kFill);
  ASSERT_TRUE(schedule.begin(0, Priority::kFill, false, kStart));
  EXPECT_TRUE(schedule.failed(0, Priority::kFill, kBroken, false, kStart));
  EXPECT_EQ(schedule.failure()->message, "broken");
  EXPECT_FALSE(schedule.is_warming());
  schedule.expect_reader(kStart + std::chrono::hours(1));
  EXPECT_FALSE(schedule.wants_fill(kStart + std::chrono::hours(1)));
  EXPECT_TRUE(schedule.is_absent(0)) << "who reads it has it tried again";
  schedule.set_warm(true, kStart);
  EXPECT_FALSE(schedule.failure());
  EXPECT_THAT(fill(schedule, kStart), ElementsAre(0, 1, 2));
}

TEST(TileSchedule, AFailureIsOverWhenAllThatFailedAreThere) {
  TileSchedule schedule(3, kStart);
  for (const uint32_t tile : {0U, 1U}) {
    schedule.queued(tile, Priority::kDemand);
    ASSERT_TRUE(schedule.begin(tile, Priority::kDemand, true, kStart));
    EXPECT_TRUE(schedule.failed(tile, Priority::kDemand, kBroken, false, kStart));
  }
  make(schedule, 0);
  EXPECT_TRUE(schedule.failure());
  make(schedule, 1);
  EXPECT_FALSE(schedule.failure());
}

TEST(TileSchedule, AFullDiskIsTriedAgainAfterPausesThatDouble) {
  TileSchedule schedule(2, kStart);
  schedule.expect_reader(kStart);
  Time now = kStart;
  std::chrono::seconds pause = TileSchedule::kFirstFillPause;
  for (int round = 0; round < 8; ++round) {
    ASSERT_TRUE(schedule.next_to_fill(1, now)) << round;
    schedule.queued(0, Priority::kFill);
    ASSERT_TRUE(schedule.begin(0, Priority::kFill, false, now));
    EXPECT_EQ(schedule.failed(0, Priority::kFill, kFull, true, now), round == 0) << "known since the first";
    schedule.expect_reader(now + pause);
    EXPECT_FALSE(schedule.wants_fill(now + pause - std::chrono::nanoseconds(1)));
    now += pause;
    EXPECT_TRUE(schedule.wants_fill(now));
    pause = std::min(2 * pause, TileSchedule::kLongestFillPause);
  }
}

TEST(TileSchedule, NothingIsReadAheadWhereThereIsNoRoom) {
  TileSchedule schedule(100, kStart);
  schedule.add_reader(false, kStart);
  (void)schedule.after_read({0, 1}, kStart);
  EXPECT_EQ(schedule.after_read({1, 2}, kStart), (TileSpan{2, 4}));
  schedule.queued(2, Priority::kDemand);
  ASSERT_TRUE(schedule.begin(2, Priority::kDemand, true, kStart));
  (void)schedule.failed(2, Priority::kDemand, kFull, true, kStart);
  EXPECT_EQ(schedule.after_read({2, 3}, kStart), TileSpan());
  schedule.abandon();
  EXPECT_EQ(schedule.after_read({3, 4}, kStart), TileSpan());
}

TEST(TileSchedule, WarmingThatIsTakenBackIsRemembered) {
  TileSchedule schedule(2, kStart);
  schedule.set_warm(true, kStart);
  EXPECT_FALSE(schedule.is_called_off());
  schedule.set_warm(false, kStart);
  EXPECT_TRUE(schedule.is_called_off());
  schedule.add_reader(false, kStart);
  EXPECT_FALSE(schedule.is_called_off());
}

}  // namespace
}  // namespace qcache

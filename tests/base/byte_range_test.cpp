#include "core/base/byte_range.h"

#include <gtest/gtest.h>

#include "core/base/checked.h"

namespace qcache {
namespace {

TEST(ByteRange, IntersectionIsWhatBothCover) {
  const ByteRange a{10, 20};
  EXPECT_EQ(a.intersect({15, 5}), (ByteRange{15, 5}));
  EXPECT_EQ(a.intersect({0, 12}), (ByteRange{10, 2}));
  EXPECT_EQ(a.intersect({29, 100}), (ByteRange{29, 1}));
  EXPECT_TRUE(a.intersect({30, 5}).empty());
  EXPECT_TRUE(a.intersect({0, 10}).empty());
}

TEST(ByteRange, ContainsItsBytesAndNoOthers) {
  const ByteRange range{10, 2};
  EXPECT_FALSE(range.contains(9));
  EXPECT_TRUE(range.contains(10));
  EXPECT_TRUE(range.contains(11));
  EXPECT_FALSE(range.contains(12));
  EXPECT_FALSE((ByteRange{10, 0}).contains(10));
}

TEST(Checked, ReportsWhatDoesNotFit) {
  EXPECT_EQ(checked_add(UINT64_MAX, 0), UINT64_MAX);
  EXPECT_FALSE(checked_add(UINT64_MAX, 1));
  EXPECT_EQ(checked_mul(uint64_t{1} << 32, (uint64_t{1} << 31)), uint64_t{1} << 63);
  EXPECT_FALSE(checked_mul(uint64_t{1} << 32, uint64_t{1} << 32));
}

TEST(Checked, RoundsUpWithoutOverflowNearTheTop) {
  EXPECT_EQ(ceil_div(UINT64_MAX, 2), uint64_t{1} << 63);
  EXPECT_EQ(round_up(0, 4096), 0U);
  EXPECT_EQ(round_up(1, 4096), 4096U);
  EXPECT_EQ(round_up(4096, 4096), 4096U);
}

}  // namespace
}  // namespace qcache

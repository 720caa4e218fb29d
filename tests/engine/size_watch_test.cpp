#include "core/engine/size_watch.h"

#include <gtest/gtest.h>

namespace qcache {
namespace {

constexpr int64_t kMs = 1'000'000;

TEST(SizeWatch, LooksWhileFilesAreMadeAndOnceMore) {
  SizeWatch watch;
  EXPECT_FALSE(watch.due(0, 1'000 * kMs)) << "nothing was made";
  ASSERT_TRUE(watch.due(100, 1'000 * kMs));
  watch.looked(100, false, 1'000 * kMs, 1'001 * kMs);
  EXPECT_TRUE(watch.due(100, 1'250 * kMs)) << "what was made may be on its way to the disk";
  watch.looked(100, false, 1'250 * kMs, 1'251 * kMs);
  EXPECT_FALSE(watch.due(100, 9'000 * kMs));
  EXPECT_TRUE(watch.due(101, 9'000 * kMs));
}

TEST(SizeWatch, SpendsATwentiethOfTheTimeAtMost) {
  SizeWatch watch;
  watch.looked(100, true, 0, 200 * kMs);
  EXPECT_FALSE(watch.due(200, 3'999 * kMs));
  EXPECT_TRUE(watch.due(200, 4'001 * kMs));
}

// Dropping a file waits for the disk, which may be busy.
TEST(SizeWatch, LooksEveryTenSecondsHoweverLongThatTakes) {
  SizeWatch watch;
  watch.looked(100, true, 0, 3'000 * kMs);
  EXPECT_FALSE(watch.due(200, 9'999 * kMs));
  EXPECT_TRUE(watch.due(200, 10'001 * kMs));
}

TEST(SizeWatch, LooksAgainWhereWhatIsTooMuchWasInUse) {
  SizeWatch watch;
  watch.looked(0, true, 0, kMs);
  EXPECT_FALSE(watch.due(0, 9'000 * kMs));
  EXPECT_TRUE(watch.due(0, 10'001 * kMs));
  watch.looked(0, false, 10'001 * kMs, 10'002 * kMs);
  EXPECT_FALSE(watch.due(0, 60'000 * kMs));
}

}  // namespace
}  // namespace qcache

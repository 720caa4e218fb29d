#include "core/engine/open_files.h"

#include <gtest/gtest.h>

namespace qcache {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

TEST(OpenFiles, NotesOpeningsAndTheLastClose) {
  OpenFiles files;
  files.opened("a", 10 * kSecond, true);
  files.opened("a", 11 * kSecond, true);
  files.opened("b", 11 * kSecond, false);
  auto uses = files.take();
  ASSERT_EQ(uses.updates.size(), 2U);
  for (const AccessUpdate& update : uses.updates) {
    EXPECT_EQ(update.accessed_ns, 11 * kSecond);
    EXPECT_EQ(update.hits, update.file == "a" ? 2U : 0U);
  }
  EXPECT_FALSE(files.closed("a", 20 * kSecond, nullptr)) << "another reader is left";
  EXPECT_TRUE(files.take().updates.empty());
  EXPECT_TRUE(files.closed("a", 30 * kSecond, nullptr));
  uses = files.take();
  ASSERT_EQ(uses.updates.size(), 1U);
  EXPECT_EQ(uses.updates[0].file, "a");
  EXPECT_EQ(uses.updates[0].accessed_ns, 30 * kSecond);
  EXPECT_EQ(uses.updates[0].hits, 0U);
}

TEST(OpenFiles, KeepsTheLeaseUntilTheUseIsWritten) {
  OpenFiles files;
  auto lease = std::make_shared<int>(0);
  files.opened("a", 0, true);
  EXPECT_TRUE(files.closed("a", 5 * kSecond, lease));
  EXPECT_TRUE(files.urgent());
  EXPECT_EQ(lease.use_count(), 2);
  {
    const auto uses = files.take();
    EXPECT_EQ(lease.use_count(), 2);
  }
  EXPECT_EQ(lease.use_count(), 1);
  EXPECT_FALSE(files.urgent());
  files.opened("a", 6 * kSecond, true);
  EXPECT_FALSE(files.closed("a", 6 * kSecond + 1, lease)) << "the opening says as much";
  EXPECT_EQ(lease.use_count(), 1);
  files.opened("a", 7 * kSecond, true);
  files.stop();
  EXPECT_FALSE(files.closed("a", 60 * kSecond, lease)) << "nobody writes it any more";
  EXPECT_EQ(lease.use_count(), 1);
}

TEST(OpenFiles, RenewsWhatIsOpen) {
  OpenFiles files;
  files.opened("a", 0, true);
  files.opened("b", 0, true);
  (void)files.closed("b", 1, nullptr);
  (void)files.take();
  files.renew(3600 * kSecond);
  const auto uses = files.take();
  ASSERT_EQ(uses.updates.size(), 1U);
  EXPECT_EQ(uses.updates[0].file, "a");
  EXPECT_EQ(uses.updates[0].accessed_ns, 3600 * kSecond);
}

}  // namespace
}  // namespace qcache

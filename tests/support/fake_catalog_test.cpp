#include "tests/support/fake_catalog.h"

#include <gtest/gtest.h>

#include "tests/support/result_matchers.h"

namespace qcache {
namespace {

Record record(const std::string& file) {
  Record record;
  record.file = file;
  return record;
}

TEST(FakeCatalog, FailsTheNthCallOnceAndWithoutEffect) {
  FakeCatalog catalog;
  catalog.fail(CatalogCall::kPut, 2, ErrorKind::kNoSpace);
  EXPECT_THAT(catalog.put(record("a"), {}, {}), is_ok());
  EXPECT_THAT(catalog.put(record("b"), {}, {}), fails_with(ErrorKind::kNoSpace, {"injected", "b"}));
  EXPECT_EQ(catalog.count(CatalogCall::kPut), 2U);
  EXPECT_EQ(catalog.list()->size(), 1U);
  EXPECT_THAT(catalog.put(record("b"), {}, {}), is_ok());
  EXPECT_EQ(catalog.list()->size(), 2U);
}

TEST(FakeCatalog, EveryCallCanBeFailedUntilHealed) {
  FakeCatalog catalog;
  ASSERT_THAT(catalog.put(record("a"), {}, {}), is_ok());
  for (const CatalogCall call : kAllCatalogCalls) {
    catalog.fail_all(call, ErrorKind::kBusy);
  }
  for (int round = 0; round < 2; ++round) {
    EXPECT_THAT(catalog.find("a"), fails_with(ErrorKind::kBusy, {"a"}));
    EXPECT_THAT(catalog.tile_digests("a"), fails_with(ErrorKind::kBusy, {"a"}));
    EXPECT_THAT(catalog.parts("a"), fails_with(ErrorKind::kBusy, {"a"}));
    EXPECT_THAT(catalog.amend("a", {}, {}), fails_with(ErrorKind::kBusy, {"a"}));
    EXPECT_THAT(catalog.quality("a", {}), fails_with(ErrorKind::kBusy, {"a"}));
    EXPECT_THAT(catalog.list(), fails_with(ErrorKind::kBusy, {}));
    EXPECT_THAT(catalog.files(), fails_with(ErrorKind::kBusy, {}));
    EXPECT_THAT(catalog.put(record("a"), {}, {}), fails_with(ErrorKind::kBusy, {"a"}));
    EXPECT_THAT(catalog.erase("a"), fails_with(ErrorKind::kBusy, {"a"}));
    EXPECT_THAT(catalog.touch({}), fails_with(ErrorKind::kBusy, {}));
    EXPECT_THAT(catalog.set_pinned("a", true), fails_with(ErrorKind::kBusy, {"a"}));
  }
  for (const CatalogCall call : kAllCatalogCalls) {
    EXPECT_GE(catalog.count(call), 2U);
  }
  catalog.heal();
  EXPECT_FALSE((*catalog.find("a"))->pinned);
}

TEST(FakeCatalog, RunsAHookBeforeTheCallOnTheGivenFile) {
  FakeCatalog catalog;
  catalog.before(
      CatalogCall::kFind, 1, [&] { EXPECT_THAT(catalog.put(record("b"), {}, {}), is_ok()); }, "b");
  EXPECT_EQ(*catalog.find("a"), std::nullopt);
  EXPECT_TRUE(catalog.find("b")->has_value());
}

}  // namespace
}  // namespace qcache

#include "tools/entry_query.h"

#include <gmock/gmock.h>

#include "tests/support/result_matchers.h"

namespace qcache {
namespace {

using ::testing::ElementsAre;

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kDay = 86'400 * kSecond;
constexpr int64_t kNow = 100 * kDay;

CacheEntry entry(const std::string& path, uint64_t size, int64_t age_days, bool sealed = true) {
  CacheEntry out;
  out.record.virtual_path = path;
  out.record.size_bytes = size;
  out.record.accessed_ns = kNow - age_days * kDay;
  out.record.created_ns = out.record.accessed_ns;
  out.disk_bytes = size / 2;
  out.sealed = sealed;
  return out;
}

std::vector<std::string> paths_after(const EntryQuery& query) {
  std::vector<CacheEntry> entries = {entry("b/int8/0.bin", uint64_t{2} << 30U, 10),
                                     entry("a/nf4/16.bin", uint64_t{1} << 20U, 1, false),
                                     entry("a/int8/0/model.safetensors", uint64_t{3} << 30U, 40)};
  entries[0].record.pinned = true;
  entries[2].record.hits = 7;
  EXPECT_TRUE(apply_query(query, kNow, entries));
  std::vector<std::string> paths;
  for (const CacheEntry& one : entries) {
    paths.push_back(one.record.virtual_path);
  }
  return paths;
}

TEST(EntryQuery, FiltersByEveryField) {
  const std::string a = "a/int8/0/model.safetensors";
  const std::string filling = "a/nf4/16.bin";
  const std::string b = "b/int8/0.bin";
  EXPECT_THAT(paths_after({}), ElementsAre(a, filling, b)) << "by name";
  EXPECT_THAT(paths_after({{"size>1G"}, "", {}}), ElementsAre(a, b));
  EXPECT_THAT(paths_after({{"size<=1M"}, "", {}}), ElementsAre(filling));
  EXPECT_THAT(paths_after({{"disk>=1G"}, "", {}}), ElementsAre(a, b));
  EXPECT_THAT(paths_after({{"accessed>7d"}, "", {}}), ElementsAre(a, b)) << "not for so long";
  EXPECT_THAT(paths_after({{"accessed>7d", "accessed<30d"}, "", {}}), ElementsAre(b)) << "all must hold";
  EXPECT_THAT(paths_after({{"created>30d"}, "", {}}), ElementsAre(a));
  EXPECT_THAT(paths_after({{"hits=7"}, "", {}}), ElementsAre(a));
  EXPECT_THAT(paths_after({{"hits!=7"}, "", {}}), ElementsAre(filling, b));
  EXPECT_THAT(paths_after({{"rank>0"}, "", {}}), ElementsAre(filling));
  EXPECT_THAT(paths_after({{"model=a"}, "", {}}), ElementsAre(a, filling));
  EXPECT_THAT(paths_after({{"dtype!=int8"}, "", {}}), ElementsAre(filling));
  EXPECT_THAT(paths_after({{"state=filling"}, "", {}}), ElementsAre(filling));
  EXPECT_THAT(paths_after({{"pinned=yes"}, "", {}}), ElementsAre(b));
  EXPECT_THAT(paths_after({{"dtype=w8a8"}, "", {}}), ElementsAre(a, b)) << "other spellings count";
}

TEST(EntryQuery, SortsAndLimits) {
  const std::string a = "a/int8/0/model.safetensors";
  const std::string filling = "a/nf4/16.bin";
  const std::string b = "b/int8/0.bin";
  EXPECT_THAT(paths_after({{}, "name:desc", {}}), ElementsAre(b, filling, a));
  EXPECT_THAT(paths_after({{}, "size", {}}), ElementsAre(a, b, filling)) << "the largest first";
  EXPECT_THAT(paths_after({{}, "disk:asc", {}}), ElementsAre(filling, b, a));
  EXPECT_THAT(paths_after({{}, "accessed", 1}), ElementsAre(filling)) << "the latest first";
  EXPECT_THAT(paths_after({{}, "accessed:asc", 2}), ElementsAre(a, b));
  EXPECT_THAT(paths_after({{}, "hits", 1}), ElementsAre(a));
}

TEST(EntryQuery, RefusesWhatItDoesNotUnderstand) {
  std::vector<CacheEntry> entries;
  for (const char* filter : {"size", "size>", "size>much", "age>7d", ">1G", "accessed>7", "hits=x", "model>a",
                             "state=foo", "pinned=true", ""}) {
    EXPECT_THAT(apply_query({{filter}, "", {}}, kNow, entries), fails_with(ErrorKind::kInvalidArgument, {})) << filter;
  }
  for (const char* sort : {"age", "size:up", ":asc", "size:"}) {
    EXPECT_THAT(apply_query({{}, sort, {}}, kNow, entries), fails_with(ErrorKind::kInvalidArgument, {})) << sort;
  }
}

}  // namespace
}  // namespace qcache

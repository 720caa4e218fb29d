#include "core/base/units.h"

#include <gtest/gtest.h>

namespace qcache {
namespace {

using std::chrono::seconds;

TEST(Units, DurationsHaveAUnit) {
  EXPECT_EQ(parse_duration("90s"), seconds(90));
  EXPECT_EQ(parse_duration("15m"), seconds(900));
  EXPECT_EQ(parse_duration("12h"), seconds(43'200));
  EXPECT_EQ(parse_duration("7d"), seconds(604'800));
  EXPECT_EQ(parse_duration("2w"), seconds(1'209'600));
  EXPECT_EQ(parse_duration("0s"), seconds(0));
  EXPECT_EQ(parse_duration("1.5h"), seconds(5400));
}

TEST(Units, OtherDurationsAreRefusedWithASentence) {
  for (const char* text : {"", "7", "d", "-1d", "7days", "7 d", "nan", "inf", "1e30d", "0x7d"}) {
    const auto parsed = parse_duration(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_EQ(parsed.error().kind, ErrorKind::kInvalidArgument) << text;
    EXPECT_NE(parsed.error().message.find("duration"), std::string::npos) << parsed.error().message;
  }
}

TEST(Units, SizesAreBinaryUnlessTheySayB) {
  EXPECT_EQ(parse_size("0"), 0U);
  EXPECT_EQ(parse_size("4096"), 4096U);
  EXPECT_EQ(parse_size("1K"), 1024U);
  EXPECT_EQ(parse_size("1KiB"), 1024U);
  EXPECT_EQ(parse_size("1KB"), 1000U);
  EXPECT_EQ(parse_size("20G"), uint64_t{20} << 30);
  EXPECT_EQ(parse_size("1.5T"), (uint64_t{3} << 40) / 2);
  for (const char* text : {"", "G", "-1G", "1X", "1GiBs", "nan", "99999999T"}) {
    EXPECT_FALSE(parse_size(text)) << text;
  }
}

TEST(Units, PrintedAsPeopleWriteThem) {
  EXPECT_EQ(format_size(0), "0");
  EXPECT_EQ(format_size(1023), "1023");
  EXPECT_EQ(format_size(1536), "1.5K");
  EXPECT_EQ(format_size(uint64_t{83} << 20), "83M");
  EXPECT_EQ(format_duration(seconds(0)), "0s");
  EXPECT_EQ(format_duration(seconds(90)), "1m30s");
  EXPECT_EQ(format_duration(seconds(7 * 86'400)), "7d");
  EXPECT_EQ(format_time(1'700'000'000'123'456'789), "2023-11-14T22:13:20Z");
}

}  // namespace
}  // namespace qcache

#include "tools/human_text.h"

#include <gtest/gtest.h>

#include <sstream>

#include "tools/progress_bar.h"
#include "tools/table_printer.h"

namespace qcache {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

TEST(HumanText, MakesNamesHarmlessForTerminals) {
  EXPECT_EQ(printable("Qwen2.5-0.5B"), "Qwen2.5-0.5B");
  EXPECT_EQ(printable("a\x1b[31mb\nc\x7f"), "a?[31mb?c?");
  EXPECT_EQ(printable("gr\xc3\xb6\xc3\x9f"
                      "er"),
            "gr\xc3\xb6\xc3\x9f"
            "er");
  EXPECT_EQ(printable("c1 \xc2\x9b"
                      "31m"),
            "c1 ?31m");
  EXPECT_EQ(printable("bad \xff\xc3"), "bad ??");
}

TEST(HumanText, CountsColumnsByCodePoint) {
  EXPECT_EQ(display_width(""), 0U);
  EXPECT_EQ(display_width("gr\xc3\xb6\xc3\x9f"
                          "er"),
            6U);
}

TEST(HumanText, TellsAgesByTheLargestUnit) {
  const struct {
    int64_t seconds;
    const char* text;
  } cases[] = {{0, "just now"},  {1, "1s ago"},      {59, "59s ago"},   {60, "1m ago"},          {3599, "59m ago"},
               {3600, "1h ago"}, {86399, "23h ago"}, {86400, "1d ago"}, {40 * 86400, "40d ago"}, {-5, "just now"}};
  for (const auto& c : cases) {
    EXPECT_EQ(format_ago(1000 * kSecond, (1000 + c.seconds) * kSecond), c.text) << c.seconds;
  }
}

TEST(HumanText, SaysHundredPercentOnlyOfAll) {
  EXPECT_EQ(format_percent(0), "0%");
  EXPECT_EQ(format_percent(0.42), "42%");
  EXPECT_EQ(format_percent(0.9999), "99%");
  EXPECT_EQ(format_percent(1), "100%");
  EXPECT_EQ(format_percent(7), "100%");
  EXPECT_EQ(format_rate(213.0 * (1U << 20U)), "213M/s");
  EXPECT_EQ(format_rate(1.25 * (1U << 20U)), "1.2M/s") << "one notation for sizes and rates";
  EXPECT_EQ(count_of(1, "file"), "1 file");
  EXPECT_EQ(count_of(0, "file"), "0 files");
}

TEST(TablePrinter, AlignsColumnsWithoutTrailingSpaces) {
  TablePrinter table({{"PATH"}, {"SIZE", true}, {"NOTE"}});
  table.add_row({"a", "7", ""});
  table.add_row(
      {"gr\xc3\xb6\xc3\x9f"
       "er\n",
       "1.5G", "x"});
  std::ostringstream out;
  table.print(out);
  EXPECT_EQ(out.str(),
            "PATH     SIZE  NOTE\n"
            "a           7\n"
            "gr\xc3\xb6\xc3\x9f"
            "er?  1.5G  x\n");
}

TEST(ProgressBar, ShowsShareRateAndTimeLeftWithinTheTerminal) {
  std::ostringstream out;
  ProgressBar bar(out, ProgressBar::Style::kTerminal, 80);
  const ProgressBar::Clock::time_point start{};
  bar.start("Qwen2.5-0.5B int8", 1000'000'000);
  bar.update(100'000'000, start);  // what was there before does not count for the rate
  bar.update(300'000'000, start + std::chrono::seconds(2));
  EXPECT_NE(out.str().find("Qwen2.5-0.5B int8 [#######.................]  30% of 954M  95M/s  7s left"),
            std::string::npos)
      << out.str();
  bar.clear();
  EXPECT_TRUE(out.str().ends_with("\r\x1b[K"));
}

TEST(ProgressBar, CutsLongLabelsToFit) {
  std::ostringstream out;
  ProgressBar bar(out, ProgressBar::Style::kTerminal, 60);
  bar.start(std::string(100, 'm') + " int8", 1000);
  bar.update(0, ProgressBar::Clock::time_point{});
  std::string line = out.str();
  ASSERT_TRUE(line.starts_with('\r'));
  ASSERT_TRUE(line.ends_with("\x1b[K"));
  line = line.substr(1, line.size() - 4);
  EXPECT_LT(line.size(), 60U);
  EXPECT_NE(line.find("m int8 ["), std::string::npos) << line;
  EXPECT_TRUE(line.starts_with("mmm")) << "the model counts as much as the dtype: " << line;
}

TEST(ProgressBar, TellsTheRateOfTheLastSecondsAndNoTimeThatNobodyKnows) {
  std::ostringstream out;
  ProgressBar bar(out, ProgressBar::Style::kTerminal, 80);
  const ProgressBar::Clock::time_point start{};
  const auto drawn_at = [&](uint64_t megabytes, int second) {
    out.str("");
    bar.update(megabytes << 20U, start + std::chrono::seconds(second));
    return out.str();
  };
  bar.start("m int8", uint64_t{1000} << 20U, "being checked");
  drawn_at(0, 0);
  for (int second = 1; second <= 10; ++second) {
    drawn_at(static_cast<uint64_t>(second) * 60, second);
  }
  EXPECT_NE(drawn_at(610, 20).find("61% of 1000M  "), std::string::npos);
  for (int second = 21; second <= 30; ++second) {
    drawn_at(static_cast<uint64_t>(610 + second - 20), second);
  }
  EXPECT_NE(drawn_at(621, 31).find(" 1.0M/s  6m19s left"), std::string::npos) << out.str() << ": it is slow by now";
  const std::string last = drawn_at(1000, 40);
  EXPECT_NE(last.find("100% of 1000M  being checked"), std::string::npos) << last;
  EXPECT_EQ(last.find("left"), std::string::npos) << last;
}

TEST(HumanText, FillsLinesAtWords) {
  EXPECT_EQ(filled("one two three", 7), "one two\nthree");
  EXPECT_EQ(filled("one two three", 7, 2), "one two\n  three");
  EXPECT_EQ(filled("unbreakable word", 4), "unbreakable\nword") << "no word is broken";
  EXPECT_EQ(filled("Example:\n  qcache ls and more of it\n\nend", 10), "Example:\n  qcache ls and more of it\n\nend");
  EXPECT_EQ(filled("", 10), "");
}

TEST(ProgressBar, WritesALineEveryTenSecondsElsewhere) {
  std::ostringstream out;
  ProgressBar bar(out, ProgressBar::Style::kLines, 80);
  const ProgressBar::Clock::time_point start{};
  bar.start("verify", 1000'000'000);
  for (int second = 0; second <= 21; ++second) {
    bar.update(static_cast<uint64_t>(second) * 10'000'000, start + std::chrono::seconds(second));
  }
  EXPECT_EQ(out.str(),
            "verify: 10% of 954M  9.5M/s  1m30s left\n"
            "verify: 20% of 954M  9.5M/s  1m20s left\n");
}

TEST(ProgressBar, StaysSilentWhenTold) {
  std::ostringstream out;
  ProgressBar bar(out, ProgressBar::Style::kSilent, 80);
  bar.start("x", 10);
  bar.update(3);
  bar.update(9, ProgressBar::Clock::now() + std::chrono::hours(1));
  bar.clear();
  EXPECT_EQ(out.str(), "");
}

}  // namespace
}  // namespace qcache

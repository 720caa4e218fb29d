#include "core/model/text.h"

#include <gtest/gtest.h>

namespace qcache {
namespace {

TEST(Text, TellsUtf8FromOtherBytes) {
  for (const char* text : {"", "abc", "\x7F", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
                           "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF", "a\xC3\xA9z"}) {
    EXPECT_TRUE(is_utf8(text)) << text;
  }
  for (const char* text : {"\x80", "\xC2", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
                           "\xF4\x90\x80\x80", "\xF8\x88\x80\x80\x80", "\xFF", "a\xE2\x82", "a\xE2\x82z"}) {
    EXPECT_FALSE(is_utf8(text)) << text;
  }
}

TEST(Text, QuotesSoThatNoTerminalIsSpoilt) {
  EXPECT_EQ(in_quotes("model.embed"), "'model.embed'");
  EXPECT_EQ(in_quotes(""), "''");
  EXPECT_EQ(in_quotes("a\x1B[31mb\nc\x7F"), "'a?[31mb?c?'");
  EXPECT_EQ(in_quotes("a\xFFz\xC2\x9Bq"), "'a?z?q'");
  EXPECT_EQ(in_quotes("\xC3\xA9"), "'\xC3\xA9'");
}

TEST(Text, CutsLongNamesBetweenCharacters) {
  const std::string cut = in_quotes("x" + std::string(200, '\xC3').replace(1, 1, "\xA9") + "tail");
  EXPECT_LE(cut.size(), 125U);
  EXPECT_TRUE(cut.ends_with("...'"));
  std::string accents = "x";
  for (int i = 0; i < 100; ++i) {
    accents += "\xC3\xA9";
  }
  EXPECT_TRUE(is_utf8(in_quotes(accents)));
  EXPECT_TRUE(in_quotes(accents).ends_with("...'"));
}

}  // namespace
}  // namespace qcache

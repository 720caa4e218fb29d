#include "core/model/config_text.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/support/result_matchers.h"

namespace qcache {
namespace {

TEST(ConfigText, ReplacesInPlaceAppendsTheRestAndKeepsAllElseToTheByte) {
  const auto text = with_members(
      R"( {"a" : 1.50e-06, "torch_dtype":"float32",
  "limit": [0.0, Infinity], "nan":NaN,"nest":{ "torch_dtype" : "x, }", "q\"": [] } } )",
      {{"torch_dtype", "\"bfloat16\""}, {"quantization_config", R"({"a": {}})"}});
  ASSERT_THAT(text, is_ok());
  EXPECT_EQ(*text, R"({
  "a": 1.50e-06,
  "torch_dtype": "bfloat16",
  "limit": [0.0, Infinity],
  "nan": NaN,
  "nest": { "torch_dtype" : "x, }", "q\"": [] },
  "quantization_config": {"a": {}}
}
)");
}

TEST(ConfigText, AnEmptyObjectGetsTheMembers) {
  EXPECT_EQ(*with_members("{}", {{"a", "1"}}), "{\n  \"a\": 1\n}\n");
  EXPECT_EQ(*with_members(" { \n } ", {}), "{\n}\n");
}

TEST(ConfigText, AKeyGivenTwiceIsReplacedByOne) {
  EXPECT_EQ(*with_members(R"({"a":1,"b":2,"a":3})", {{"a", "9"}}), "{\n  \"a\": 9,\n  \"b\": 2\n}\n");
}

TEST(ConfigText, QuotesAndBracketsInsideStringsMeanNothing) {
  const std::string object = R"({"a":"}],\"{","b":["\\",{"c":"]"}]})";
  EXPECT_EQ(*with_members(object, {{"x", "0"}}),
            "{\n  \"a\": \"}],\\\"{\",\n  \"b\": [\"\\\\\",{\"c\":\"]\"}],\n  \"x\": 0\n}\n");
}

TEST(ConfigText, RefusesWhatIsNoObject) {
  for (const char* text : {"", "[]", "1", "{", R"({"a":})", R"({"a":1}})", R"({"a" 1})"}) {
    EXPECT_THAT(with_members(text, {}), fails_with(ErrorKind::kInvalidModel, {})) << text;
  }
}

TEST(ConfigText, FindsKeysOfTheTopLevelOnly) {
  EXPECT_TRUE(has_member(R"({"x":{"dtype":1},"torch_dtype":null})", "torch_dtype"));
  EXPECT_FALSE(has_member(R"({"x":{"dtype":1}})", "dtype"));
  EXPECT_FALSE(has_member("nothing", "dtype"));
}

}  // namespace
}  // namespace qcache

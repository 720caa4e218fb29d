#include "core/model/strict_json.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/support/result_matchers.h"

namespace qcache {
namespace {

/// Writes the events down as a line of text.
class Recorder final : public JsonVisitor {
 public:
  std::string events;

  Status on_key(std::string_view key) override {
    events += std::string(key) + '=';
    return key == "stop" ? fail(ErrorKind::kUnsupported, "stopped") : Status();
  }
  Status on_value(const JsonValue& value) override {
    switch (value.kind) {
      case JsonKind::kNull:
        events += "null ";
        break;
      case JsonKind::kBool:
        events += value.boolean ? "true " : "false ";
        break;
      case JsonKind::kUnsigned:
        events += std::to_string(value.number) + ' ';
        break;
      case JsonKind::kOtherNumber:
        events += "number ";
        break;
      case JsonKind::kString:
        events += '"' + std::string(value.text) + "\" ";
        break;
      case JsonKind::kObject:
        events += "{ ";
        break;
      case JsonKind::kArray:
        events += "[ ";
        break;
    }
    return {};
  }
  Status on_end() override {
    events += "end ";
    return {};
  }
};

Result<std::string> events_of(std::string_view json, const JsonRules& rules = {}) {
  Recorder recorder;
  QCACHE_TRY(visit_json(json, rules, recorder));
  return recorder.events;
}

TEST(StrictJson, TellsWhatItSeesInOrder) {
  EXPECT_EQ(events_of(R"( {"a":[0,18446744073709551615,-1,1.0,1e2],"b":{"c":"\u00e9"},"d":null,"e":true} )").value(),
            "{ a=[ 0 18446744073709551615 number number number end b={ c=\"\xC3\xA9\" end d=null e=true end ");
  // Beyond 64 bits, and minus zero, are not unsigned.
  EXPECT_EQ(events_of("[18446744073709551616, -0]").value(), "[ number number end ");
}

TEST(StrictJson, RefusesWhatIsNotStrictJson) {
  struct Case {
    std::string json;
    const char* words;
  };
  const std::string deep(kMaxJsonDepth + 1, '[');
  for (const auto& [json, words] : std::initializer_list<Case>{
           {"", "not JSON"},
           {"{", "not JSON"},
           {"{} x", "not JSON at byte 4"},
           {"{}{}", "not JSON"},
           {"[1,]", "not JSON"},
           {"{'a':1}", "not JSON"},
           {"[01]", "not JSON"},
           {"[1] // c", "not JSON"},
           {"[NaN]", "not JSON"},
           {"[1e999]", "not JSON"},
           {std::string("{}\0{}", 5), "not JSON at byte 3"},
           {std::string("[\"a\0\"]", 6), "not JSON"},
           {"\xEF\xBB\xBF{}", "byte order mark"},
           {"[\"\xFF\"]", "not UTF-8"},
           {"[\"\xED\xA0\x80\"]", "not UTF-8"},
           {"[\"\\ud800\"]", "not JSON"},
           {"{\"a\":1,\"b\":2,\"a\":3}", "key 'a' is there twice"},
           {"{\"a\":1,\"\\u0061\":3}", "key 'a' is there twice"},
           {"[{\"x\":{\"a\":1,\"a\":3}}]", "key 'a' is there twice"},
           {deep, "deeper than 16"},
           {deep + std::string(kMaxJsonDepth + 1, ']'), "deeper than 16"},
           {"{\"" + std::string(kMaxJsonKeyBytes + 1, 'k') + "\":1}", "longer than 64 KiB"},
       }) {
    EXPECT_THAT(events_of(json), fails_with(ErrorKind::kInvalidModel, {words})) << json.substr(0, 40);
  }
}

TEST(StrictJson, AcceptsTheLimits) {
  EXPECT_THAT(events_of(std::string(kMaxJsonDepth, '[') + std::string(kMaxJsonDepth, ']')), is_ok());
  EXPECT_THAT(events_of("{\"" + std::string(kMaxJsonKeyBytes, 'k') + "\":1}"), is_ok());
}

TEST(StrictJson, TheSameKeyInTwoObjectsIsNoDuplicate) {
  EXPECT_THAT(events_of(R"({"a":{"x":1},"b":{"x":1},"x":[{"x":1},{"x":1}]})"), is_ok());
}

TEST(StrictJson, PythonRulesAllowRepeatedKeysAndSpecialNumbers) {
  const JsonRules rules{.unique_keys = false, .python_numbers = true};
  EXPECT_EQ(events_of(R"({"a":NaN,"a":[0.0,Infinity,-Infinity],"NaN":"x\"NaN\\","b":1})", rules).value(),
            "{ a=number a=[ number number number end NaN=\"x\"NaN\\\" b=1 end ");
  EXPECT_THAT(events_of("[NaNs]", rules), fails_with(ErrorKind::kInvalidModel, {"not JSON"}));
}

TEST(StrictJson, StopsAtTheFirstErrorOfTheVisitor) {
  EXPECT_THAT(events_of(R"({"stop":1, broken)"), fails_with(ErrorKind::kUnsupported, {"stopped"}));
}

}  // namespace
}  // namespace qcache

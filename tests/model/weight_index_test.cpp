#include <gtest/gtest.h>

#include <string>

#include "core/model/weight_index.h"
#include "tests/support/result_matchers.h"

namespace qcache {
namespace {

TEST(WeightIndex, SortsTensorsAndShards) {
  const auto index = parse_weight_index(
      R"({"metadata":{"total_size":12.5,"x":[null]},"weight_map":{"b":"s2","a":"s2","c":"s1"},"other":{"weight_map":1}})");
  ASSERT_THAT(index, is_ok());
  EXPECT_EQ(index->shards, (std::vector<std::string>{"s1", "s2"}));
  const std::vector<std::pair<std::string, std::string>> map{{"a", "s2"}, {"b", "s2"}, {"c", "s1"}};
  EXPECT_EQ(index->weight_map, map);
}

TEST(WeightIndex, TakesATensorThatIsNamedTwiceInOneFile) {
  const auto index = parse_weight_index(R"({"weight_map":{"a":"s1","b":"s2","a":"s1"}})");
  ASSERT_THAT(index, is_ok());
  const std::vector<std::pair<std::string, std::string>> map{{"a", "s1"}, {"b", "s2"}};
  EXPECT_EQ(index->weight_map, map);
}

TEST(WeightIndex, RejectsWhatIsNoIndex) {
  struct Case {
    std::string json;
    std::vector<std::string> words;
  };
  for (const auto& [json, words] : std::initializer_list<Case>{
           {"", {"not JSON"}},
           {"[]", {"not a JSON object"}},
           {"{}", {"no weight_map"}},
           {R"({"weight_map":{}})", {"no weight_map, or an empty one"}},
           {R"({"weight_map":[]})", {"weight_map", "not an object"}},
           {R"({"weight_map":{"a":1}})", {"no file for tensor 'a'"}},
           {R"({"weight_map":{"a":["s"]}})", {"no file for tensor 'a'"}},
           {R"({"weight_map":{"a":{}}})", {"no file for tensor 'a'"}},
           {R"({"weight_map":{"a":"s1","a":"s2"}})", {"'a'", "twice"}},
           {R"({"weight_map":{"a":"s"},"weight_map":{"b":"s"}})", {"'weight_map'", "twice"}},
           {R"({"weight_map":{"a":"../x"}})", {"'../x' for tensor 'a'", "not a plain file name"}},
           {R"({"weight_map":{"a":"/etc/passwd"}})", {"'/etc/passwd'", "not a plain file name"}},
           {R"({"weight_map":{"a":"d/x"}})", {"not a plain file name"}},
           {R"({"weight_map":{"a":"d\\x"}})", {"not a plain file name"}},
           {R"({"weight_map":{"a":".."}})", {"not a plain file name"}},
           {R"({"weight_map":{"a":"."}})", {"not a plain file name"}},
           {R"({"weight_map":{"a":""}})", {"not a plain file name"}},
           {R"({"weight_map":{"a":"x\u0000y"}})", {"not a plain file name"}},
           {R"({"weight_map":{"a":")" + std::string(256, 'x') + R"("}})", {"not a plain file name"}},
           {R"({"weight_map":{"a":"s"}} {})", {"not JSON"}},
           {std::string(100'000'001, ' '), {"100 MB"}},
       }) {
    EXPECT_THAT(parse_weight_index(json), fails_with(ErrorKind::kInvalidModel, words)) << json.substr(0, 60);
  }
}

}  // namespace
}  // namespace qcache

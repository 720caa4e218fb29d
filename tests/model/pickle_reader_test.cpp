#include "core/model/pickle_reader.h"

#include <gtest/gtest.h>

#include "tests/support/result_matchers.h"
#include "tests/support/torch_file.h"

namespace qcache {
namespace {

using namespace std::string_literals;

Result<Pickle> read(const std::string& bytes) {
  MemoryBytes source(bytes);
  return read_pickle(source, 0, bytes.size());
}
Result<Pickle> read_value(const std::string& opcodes) {
  return read(pickle_of(opcodes));
}

std::string show(const PickleGraph& graph, PickleRef ref, int depth = 0) {
  std::string out;
  if (depth > 8) {
    return "...";
  }
  const auto list = [&] {
    for (const PickleRef item : graph.items(ref)) {
      out += (out.empty() ? "" : " ") + show(graph, item, depth + 1);
    }
    return out;
  };
  switch (graph.kind(ref)) {
    case PickleKind::kNone:
      return "None";
    case PickleKind::kBool:
      return graph.number(ref) == 1 ? "True" : "False";
    case PickleKind::kInt:
      return std::to_string(graph.number(ref));
    case PickleKind::kText:
      return '"' + std::string(graph.text(ref)) + '"';
    case PickleKind::kTuple:
      return '(' + list() + ')';
    case PickleKind::kList:
      return '[' + list() + ']';
    case PickleKind::kDict:
      return '{' + list() + '}';
    case PickleKind::kGlobal:
      return std::string(graph.module(ref)) + '.' + std::string(graph.text(ref));
    case PickleKind::kCall:
      return show(graph, graph.callable(ref), depth + 1) + show(graph, graph.argument(ref), depth + 1);
    case PickleKind::kPersistent:
      return '@' + show(graph, graph.argument(ref), depth + 1);
    case PickleKind::kOpaque:
      return "?";
  }
  return "";
}

std::string shown(const std::string& opcodes) {
  const auto pickle = read_value(opcodes);
  return pickle ? show(pickle->graph, pickle->graph.root()) : pickle.error().message;
}

TEST(PickleReader, ReadsDataOfEveryKind) {
  for (const auto& [opcodes, value] : std::initializer_list<std::pair<std::string, std::string>>{
           {"N", "None"},
           {"\x88", "True"},
           {"\x89", "False"},
           {"J\xFE\xFF\xFF\xFF", "-2"},
           {"K\xFF", "255"},
           {"M\x01\x02", "513"},
           {"\x8a\x00"s, "0"},
           {"\x8a\x01\x80"s, "-128"},
           {"\x8a\x08\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F", "9223372036854775807"},
           {"\x8a\x09\0\0\0\0\0\0\0\0\x01"s, "?"},
           {"\x8b\x02\0\0\0\x01\x02"s, "513"},
           {"G\0\0\0\0\0\0\0\0"s, "?"},
           {"U\x02xy", "\"xy\""},
           {"T\x01\0\0\0x"s, "\"x\""},
           {"X\x01\0\0\0x"s, "\"x\""},
           {"\x8c\x01x", "\"x\""},
           {"\x8d\x01\0\0\0\0\0\0\0x"s, "\"x\""},
           {"C\x01x", "?"},
           {"B\x01\0\0\0x"s, "?"},
           {"\x8e\x01\0\0\0\0\0\0\0x"s, "?"},
           {")", "()"},
           {"K\x01\x85", "(1)"},
           {"K\x01K\x02\x86", "(1 2)"},
           {"K\x01K\x02K\x03\x87", "(1 2 3)"},
           {"(K\x01(K\x02tt", "(1 (2))"},
           {"]", "[]"},
           {"(K\x01l", "[1]"},
           {"]K\x01"
            "a(K\x02K\x03"
            "e",
            "[1 2 3]"},
           {"\x8f(K\x01\x90", "[1]"},
           {"(K\x01\x91", "[1]"},
           {"}", "{}"},
           {"(K\x01K\x02"
            "d",
            "{1 2}"},
           {"}K\x01K\x02s(K\x03K\x04u", "{1 2 3 4}"},
           {"cos\nsystem\n", "os.system"},
           {"\x8c\x02os\x8c\x06system\x93", "os.system"},
           {"cos\nsystem\nU\x02ls\x85R", "os.system(\"ls\")"},
           {"ca\nb\n)\x81", "a.b()"},
           {"ca\nb\n)}\x92", "a.b()"},
           {"ccollections\nOrderedDict\n)RK\x01K\x02s", "{1 2}"},
           {"ccollections\nOrderedDict\n]]K\x01"
            "aK\x02"
            "aa\x85R",
            "{1 2}"},
           {"ca\nb\n)R}b", "a.b()"},
           {"ca\nb\n)RK\x01K\x02s", "a.b()"},  // an object, which may do with items what it likes
           {"U\x01xQ", "@\"x\""},
           {"]q\x01K\x05"
            "ah\x01"
            "a",
            "[5 [5 [5 [5 [5 [5 [5 [5 [... ...]]]]]]]]]"},
           {"K\x01r\xFF\xFF\0\0K\x02j\xFF\xFF\0\0\x86"s, "(2 1)"},
           {"K\x07\x94K\x08\x94h\0h\x01\x86"s, "(7 8)"},
           {"K\x01K\x02"
            "0",
            "1"},
           {"K\x01(K\x02K\x03"
            "1",
            "1"},
           {"K\x01(0", "1"},
           {"\x95\x01\0\0\0\0\0\0\0N"s, "None"},
       }) {
    EXPECT_EQ(shown(opcodes), value);
  }
}

TEST(PickleReader, StopsWhereThePickleEnds) {
  const std::string two = "xx" + pickle_of("K\x01") + pickle_of("K\x02");
  MemoryBytes source(two);
  const auto first = read_pickle(source, 2, two.size());
  ASSERT_THAT(first, is_ok());
  EXPECT_EQ(first->end, 7U);
  const auto second = read_pickle(source, first->end, two.size());
  ASSERT_THAT(second, is_ok());
  EXPECT_EQ(second->graph.number(second->graph.root()), 2);
  EXPECT_EQ(second->end, two.size());
}

TEST(PickleReader, ListsPersistentValuesEvenIfUnused) {
  const auto pickle = read_value("U\x01xQ0U\x01yQ");
  ASSERT_THAT(pickle, is_ok());
  ASSERT_EQ(pickle->graph.persistent().size(), 2U);
  EXPECT_EQ(show(pickle->graph, pickle->graph.persistent()[0]), "@\"x\"");
}

TEST(PickleReader, RefusesWhatIsNoPickle) {
  struct Case {
    std::string bytes;
    std::vector<std::string> words;
  };
  for (const auto& [bytes, words] : std::initializer_list<Case>{
           {"", {"in the middle"}},
           {"}.", {"no pickle of protocol 2"}},
           {"\x80\x06N.", {"protocol 6"}},
           {"\x80\x02N", {"in the middle"}},
           {"\x80\x02.", {"a value that is not there"}},
           {"\x80\x02(.", {"a value that is not there"}},
           {"\x80\x02X\xFF\xFF\xFF\xFFx.", {"in the middle"}},
           {"\x80\x02\x8d\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFFx.", {"in the middle"}},
           {"\x80\x02K\x01\x86.", {"a value that is not there"}},
           {"\x80\x02K\x01(K\x02\x86t.", {"a value that is not there"}},  // not across a mark
           {"\x80\x02N(R.", {"a value that is not there"}},
           {"\x80\x02t.", {"was not started"}},
           {"\x80\x02K\x01"
            "a.",
            {"adds to a value that is not there"}},
           {"\x80\x02}(K\x01u.", {"key without a value"}},
           {"\x80\x02}b.", {"state to a value that is not there"}},
           {"\x80\x02q\x01.", {"remembers a value that is not there"}},
           {"\x80\x02h\x01.", {"value 1", "did not remember"}},
           {"\x80\x02Nr\xFF\xFF\xFF\xFF.", {"remembers more than"}},
           {"\x80\x02NN\x93.", {"no text"}},
           {"\x80\x02"
            "cos\nsystem",
            {"in the middle"}},
           {"\x80\x02"
            "c" +
                std::string(5000, 'x') + "\n\n.",
            {"more than 4096"}},
           {"\x80\x02I1\n.", {"opcode 0x49"}},
           {"\x80\x02"
            "V1\n.",
            {"opcode 0x56"}},
           {"\x80\x02ios\nsystem\n.", {"opcode 0x69"}},
       }) {
    EXPECT_THAT(read(bytes), fails_with(ErrorKind::kInvalidModel, words)) << testing::PrintToString(bytes);
  }
}

TEST(PickleReader, DepthCostsNothing) {
  // A list in a list in a list, a million times; and a tuple of a tuple.
  EXPECT_THAT(read_value(std::string(1'000'000, ']') + std::string(999'999, 'a')), is_ok());
  EXPECT_THAT(read_value(')' + std::string(1'000'000, '\x85')), is_ok());
  EXPECT_THAT(read_value(std::string(10'001, '(')), fails_with(ErrorKind::kInvalidModel, {"nests too deeply"}));
}

TEST(PickleReader, BoundsWhatAPickleCanCost) {
  constexpr size_t kMany = (size_t{4} << 20) + 1;
  EXPECT_THAT(read_value(std::string(kMany, 'N')),
              fails_with(ErrorKind::kInvalidModel, {"more than the 4194304 values"}));
  std::string doubling = "]";  // each list holds the one before twice, which only names it
  for (int i = 0; i < 100; ++i) {
    doubling += "q"s + static_cast<char>(i) + "](h" + static_cast<char>(i) + "h" + static_cast<char>(i) + "e";
  }
  EXPECT_THAT(read_value(doubling), is_ok());
  // One list of pairs, given to OrderedDict again and again.
  std::string pairs = "](";
  for (int i = 0; i < 1000; ++i) {
    pairs += "K\x01K\x02\x86";
  }
  pairs += "e\x85q\x01";
  std::string copies = pairs;
  for (int i = 0; i < 5000; ++i) {
    copies += "ccollections\nOrderedDict\nh\x01R0";
  }
  EXPECT_THAT(read_value(copies), fails_with(ErrorKind::kInvalidModel, {"more than the 4194304 values"}));
}

TEST(PickleReader, HugePicklesAreRefusedUnread) {
  class Huge final : public ByteSource {
   public:
    [[nodiscard]] uint64_t size() const override { return uint64_t{1} << 40; }
    uint64_t read_bytes = 0;

   private:
    Status read_inside(uint64_t offset, std::span<std::byte> out) override {
      read_bytes += out.size();
      const std::string head = "\x80\x02X\xF0\xFF\xFF\xFF";  // a text of nearly 4 GiB
      for (size_t i = 0; i < out.size(); ++i) {
        out[i] = offset + i < head.size() ? static_cast<std::byte>(head[offset + i]) : std::byte{0};
      }
      return {};
    }
  } huge;
  EXPECT_THAT(read_pickle(huge, 0, huge.size()), fails_with(ErrorKind::kInvalidModel, {"more than the 268435456"}));
  EXPECT_LT(huge.read_bytes, 1U << 20);
}

}  // namespace
}  // namespace qcache

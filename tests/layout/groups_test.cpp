#include "core/layout/groups.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/layout/test_schemes.h"

namespace qcache {
namespace {

using testing::AllOf;
using testing::HasSubstr;

Result<Groups> plan(const SourceModel& model, const Scheme& scheme, const Groups::Visit& visit) {
  return Groups::plan(std::make_shared<const SourceModel>(model), scheme, {}, visit);
}

/// Checks that a group that is made again is the one that was shown.
std::vector<Group> groups_of(const SourceModel& model, const Scheme& scheme) {
  std::vector<Group> shown;
  const auto groups = plan(model, scheme, [&](const Group& group) -> Status {
    shown.push_back(group);
    return {};
  });
  EXPECT_TRUE(groups.has_value()) << groups.error().message;
  EXPECT_EQ(groups ? groups->count() : 0, shown.size());
  for (uint32_t i = 0; i < shown.size(); ++i) {
    const Group again = groups->make(i);
    EXPECT_EQ(again.tensor, shown[i].tensor);
    EXPECT_EQ(again.tiles, shown[i].tiles);
    EXPECT_EQ(again.units_per_tile, shown[i].units_per_tile);
    EXPECT_EQ(again.encoding.stored.size(), shown[i].encoding.stored.size());
    for (uint32_t tile = again.tiles.first; tile < again.tiles.end; ++tile) {
      EXPECT_EQ(groups->group_of(tile), i);
    }
  }
  EXPECT_EQ(groups ? groups->tile_count() : 0, shown.empty() ? 0 : shown.back().tiles.end);
  return shown;
}

Error failure_of(const SourceModel& model, const Scheme& scheme) {
  const auto groups = plan(model, scheme, [](const Group& /*group*/) { return Status(); });
  EXPECT_FALSE(groups.has_value());
  return groups ? Error{} : groups.error();
}

TEST(Groups, FillTilesByOutputAndSourceBytes) {
  struct Case {
    uint64_t source_bytes_per_unit;
    uint64_t stored_bytes_per_unit;
    uint64_t units_per_tile;
  };
  const Case cases[] = {
      {1, 1, kTileOutputBytes},                         // output is the limit
      {8, 1, kTileSourceBytes / 8},                     // source is the limit
      {8192, 4096 + 4, kTileOutputBytes / (4096 + 4)},  // a row of BF16 as int8 and a scale
      {kTileSourceBytes, 1, 1},                         // just one unit
      {4, kTileOutputBytes, 1},
      {4, kTileOutputBytes + 1, 1},  // one unit is more than a tile may make, yet is one
      {kTileSourceBytes * 3, 1, 1},
  };
  for (const Case& c : cases) {
    const TestScheme scheme("x", [&](const TensorInfo& tensor) {
      Encoding encoding;
      StoredTensor stored;
      stored.name = tensor.name;
      stored.shape = {10 * c.stored_bytes_per_unit};
      stored.bytes_per_unit = c.stored_bytes_per_unit;
      encoding.stored = {stored};
      encoding.source_bytes_per_unit = c.source_bytes_per_unit;
      encoding.source_bytes = 10 * c.source_bytes_per_unit;
      return encoding;
    });
    const auto groups = groups_of(make_model({make_tensor("w", DType::kF32, {10})}), scheme);
    ASSERT_EQ(groups.size(), 1U);
    EXPECT_EQ(groups[0].units_per_tile, c.units_per_tile)
        << c.source_bytes_per_unit << " -> " << c.stored_bytes_per_unit;
    EXPECT_EQ(groups[0].tiles, (TileSpan{0, c.units_per_tile >= 10 ? 1U : 10U}));
  }
}

TEST(Groups, CountTheOutputOfAllStoredTensorsOfAUnit) {
  const TestScheme scheme("int8", int8_encoding);
  const auto groups = groups_of(make_model({make_tensor("w", DType::kBF16, {5000, 4096})}), scheme);
  ASSERT_EQ(groups.size(), 1U);
  EXPECT_EQ(groups[0].units_per_tile, kTileOutputBytes / (4096 + 4));
  EXPECT_EQ(groups[0].tiles, (TileSpan{0, 10}));  // 5000 rows, 511 in a tile
}

TEST(Groups, HaveNoTilesWhereAllIsConstantOrEmpty) {
  const TestScheme scheme("odd", odd_encoding);
  const auto groups =
      groups_of(make_model({make_tensor("constants", DType::kF32, {9}), make_tensor("matrix", DType::kF32, {2, 9}),
                            make_tensor("empty", DType::kF32, {2, 0}), make_tensor("more.constants", DType::kF32, {9}),
                            make_tensor("scalar", DType::kF32, {})}),
                scheme);
  ASSERT_EQ(groups.size(), 5U);
  EXPECT_EQ(groups[0].tiles, (TileSpan{0, 0}));
  EXPECT_EQ(groups[1].tiles, (TileSpan{0, 2}));  // 18 elements: 3 units, 2 in a tile
  EXPECT_EQ(groups[2].tiles, (TileSpan{2, 2}));
  EXPECT_EQ(groups[3].tiles, (TileSpan{2, 2}));
  EXPECT_EQ(groups[4].tiles, (TileSpan{2, 3}));
}

TEST(Groups, OfNoTensorsAreNone) {
  EXPECT_TRUE(groups_of(make_model({}), TestScheme("int8", int8_encoding)).empty());
}

TEST(Groups, RefuseANameStoredTwice) {
  const auto error = failure_of(
      make_model({make_tensor("a.weight_scale", DType::kF32, {4}), make_tensor("a.weight", DType::kF32, {4, 4})}),
      TestScheme("int8", int8_encoding));
  EXPECT_EQ(error.kind, ErrorKind::kInvalidModel);
  EXPECT_THAT(error.message, AllOf(HasSubstr("'a.weight_scale' would be stored twice"), HasSubstr("'a.weight'"),
                                   HasSubstr("'tiny'"), HasSubstr("'int8'")));
}

TEST(Groups, PassOnTheRefusalOfTheScheme) {
  TestScheme scheme("int8", int8_encoding);
  scheme.refuse("the weights are quantized already (awq)");
  const auto error = failure_of(make_model({}), scheme);
  EXPECT_EQ(error.kind, ErrorKind::kUnsupported);
  EXPECT_EQ(error.message, "the weights are quantized already (awq)");
}

TEST(Groups, RefuseMoreTilesThanNumbers) {
  // 2^33 tiles of 2 MiB.
  const auto error = failure_of(
      make_model({make_tensor("small", DType::kU8, {1}), make_tensor("vast", DType::kU8, {uint64_t{1} << 54})}),
      TestScheme("x", [](const TensorInfo& tensor) { return copy_encoding(tensor); }));
  EXPECT_EQ(error.kind, ErrorKind::kUnsupported);
  EXPECT_THAT(error.message, AllOf(HasSubstr("'vast'"), HasSubstr("4294967295 tiles")));
}

TEST(Groups, RefuseSizesThatOverflow) {
  for (const Shape& shape :
       {Shape{uint64_t{1} << 40, uint64_t{1} << 40}, Shape{uint64_t{1} << 63}, Shape{~uint64_t{0}, ~uint64_t{0}, 2}}) {
    const auto error =
        failure_of(make_model({make_tensor("w", DType::kU8, {4})}), TestScheme("x", [&](const TensorInfo& tensor) {
                     Encoding encoding = copy_encoding(tensor);
                     encoding.stored[0].shape = shape;
                     return encoding;
                   }));
    EXPECT_EQ(error.kind, ErrorKind::kInvalidModel);
    EXPECT_THAT(error.message, AllOf(HasSubstr("'w'"), HasSubstr("2^63")));
  }
}

TEST(Groups, ReportEncodingsThatContradictThemselves) {
  struct Case {
    std::function<void(Encoding&)> spoil;
    const char* message;
  };
  const Case cases[] = {
      {[](Encoding& e) { e.stored[0].constant = "abc"; }, "length differs"},
      {[](Encoding& e) { e.stored[0].bytes_per_unit = 0; }, "no unit makes"},
      {[](Encoding& e) { e.source_bytes_per_unit = 0; }, "no unit makes"},
      {[](Encoding& e) { e.source_bytes = 0; }, "no unit makes"},
      {[](Encoding& e) {
         e.stored.push_back(e.stored[0]);
         e.stored[1].name = "other";
         e.stored[1].bytes_per_unit = ~uint64_t{0};
       },
       "more than 2^64"},
      {[](Encoding& e) {
         e.stored[0].order = UnitOrder::kFolded;
         e.stored[0].bytes_per_unit = 1;  // 2 bytes of 16
       },
       "no unit makes"},
      {[](Encoding& e) {
         e.stored[0].order = UnitOrder::kFolded;
         e.stored[0].bytes_per_unit = ~uint64_t{0};
       },
       "no unit makes"},
      {[](Encoding& e) {
         e.stored[0].order = UnitOrder::kOnce;
         e.survey = [](DType /*dtype*/, std::span<const std::byte> /*source*/, Survey& /*survey*/) {};
       },
       "from a survey"},
      {[](Encoding& e) {
         e.stored[0].order = UnitOrder::kOnce;
         e.stored[0].once = [](const Survey& /*survey*/) { return std::string(16, 'x'); };
       },
       "from a survey"},
  };
  for (const Case& c : cases) {
    const auto error = failure_of(make_model({make_tensor("w", DType::kF32, {4})}),
                                  TestScheme("spoilt", [&](const TensorInfo& tensor) {
                                    Encoding encoding = copy_encoding(tensor);
                                    c.spoil(encoding);
                                    return encoding;
                                  }));
    EXPECT_EQ(error.kind, ErrorKind::kInternal);
    EXPECT_THAT(error.message, AllOf(HasSubstr(c.message), HasSubstr("'w'"), HasSubstr("'spoilt'")));
  }
}

}  // namespace
}  // namespace qcache

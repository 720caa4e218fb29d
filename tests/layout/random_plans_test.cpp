#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <random>
#include <set>

#include "core/base/digest.h"
#include "core/layout/safetensors_layout.h"
#include "core/layout/torch_zip.h"
#include "tests/layout/checkpoint_file.h"
#include "tests/layout/test_schemes.h"
#include "tests/support/plans.h"

namespace qcache {
namespace {

using Bytes = std::vector<std::byte>;
constexpr std::byte kUntouched{0xEE};
constexpr int kModels = 500;

constexpr std::array kOptions = {TorchZipOptions{},
                                 TorchZipOptions{64, 0, false, false},
                                 TorchZipOptions{4096, 0, true, true},
                                 TorchZipOptions{1, 0, false, true},
                                 TorchZipOptions{512, 4096, true, false},
                                 TorchZipOptions{64, 96, false, true}};

/// A random model in one of the schemes and one of the containers, and the file that its plan gives.
class RandomPlans : public testing::Test {
 protected:
  static const Scheme& scheme(uint64_t index) {
    static const TestScheme kCopy("copy", [](const TensorInfo& tensor) { return copy_encoding(tensor, 16); });
    static const TestScheme kInt8("int8", int8_encoding);
    static const TestScheme kOdd("odd", odd_encoding);
    const std::array<const Scheme*, 3> schemes = {&kCopy, &kInt8, &kOdd};
    return *schemes[index % schemes.size()];
  }

  /// Plans as a torch zip with one of the sets of options, or as safetensors.
  Result<std::shared_ptr<const LayoutPlan>> plan_in(size_t container, const Scheme& scheme) {
    return container < kOptions.size() ? plan_torch_zip(model_, scheme, kOptions.at(container))
                                       : plan_safetensors(model_, scheme);
  }

  void plan(int seed, size_t containers = kOptions.size() + 1) {
    random_.seed(static_cast<uint64_t>(seed));
    model_ = random_model(random_, random_() % 24);
    const Scheme& chosen = scheme(random_());
    const size_t container = random_() % containers;
    auto planned = plan_in(container, chosen);
    ASSERT_TRUE(planned.has_value()) << planned.error().message;
    plan_ = *planned;
    file_ = make_bytes(*plan_, {0, plan_->size_bytes()}, scrambled_bytes);
    auto again = plan_in(container, chosen);
    ASSERT_TRUE(again.has_value());
    ASSERT_EQ(make_bytes(**again, {0, plan_->size_bytes()}, scrambled_bytes), file_);
  }

  /// A range that often starts or ends at a piece's border.
  ByteRange random_range() {
    const uint64_t size = plan_->size_bytes();
    const auto pieces = plan_->locate({0, size});
    const auto point = [&] {
      const Piece& piece = pieces[random_() % pieces.size()];
      const uint64_t points[] = {piece.range.offset, piece.range.end(), piece.range.offset + piece.range.size / 2,
                                 random_() % (size + 1)};
      return points[random_() % std::size(points)];
    };
    const auto [begin, end] = std::minmax({point(), point()});
    return {begin, end - begin};
  }

  std::mt19937_64 random_;
  SourceModel model_;
  std::shared_ptr<const LayoutPlan> plan_;
  Bytes file_;
};

void expect_tiling(const LayoutPlan& plan, ByteRange range) {
  uint64_t position = range.offset;
  bool after_static = false;
  for (const Piece& piece : plan.locate(range)) {
    ASSERT_EQ(piece.range.offset, position);
    ASSERT_FALSE(piece.range.empty());
    ASSERT_FALSE(after_static && piece.kind == PieceKind::kStatic) << "two static pieces in a row";
    after_static = piece.kind == PieceKind::kStatic;
    position = piece.range.end();
  }
  ASSERT_EQ(position, range.end());
}

TEST_F(RandomPlans, AnyRangeIsTheSameBytesAsTheWholeFile) {
  for (int i = 0; i < kModels; ++i) {
    SCOPED_TRACE(i);
    ASSERT_NO_FATAL_FAILURE(plan(i));
    ASSERT_NO_FATAL_FAILURE(expect_tiling(*plan_, {0, plan_->size_bytes()}));
    for (int j = 0; j < 12; ++j) {
      const ByteRange range = random_range();
      ASSERT_NO_FATAL_FAILURE(expect_tiling(*plan_, range));
      const auto begin = file_.begin() + static_cast<ptrdiff_t>(range.offset);
      const Bytes expected(begin, begin + static_cast<ptrdiff_t>(range.size));
      ASSERT_EQ(make_bytes(*plan_, range, scrambled_bytes), expected);

      // All static bytes of the range at once, and no others.
      Bytes only_static = expected;
      for (const Piece& piece : plan_->locate(range)) {
        if (piece.kind != PieceKind::kStatic) {
          std::fill_n(only_static.begin() + static_cast<ptrdiff_t>(piece.range.offset - range.offset), piece.range.size,
                      kUntouched);
        }
      }
      Bytes rendered(range.size, kUntouched);
      plan_->render_static(range, rendered);
      ASSERT_EQ(rendered, only_static);
    }
    // Beyond the end there is nothing.
    const uint64_t size = plan_->size_bytes();
    EXPECT_TRUE(plan_->locate({size, 4096}).empty());
    EXPECT_EQ(plan_->locate({size - 1, 4096}).back().range.end(), size);
  }
}

TEST_F(RandomPlans, RecordsOfATorchZipEndWithTheCrcOfWhatIsBefore) {
  for (int i = 0; i < kModels; ++i) {
    SCOPED_TRACE(i);
    ASSERT_NO_FATAL_FAILURE(plan(i, kOptions.size()));
    for (uint32_t g = 0; g < plan_->group_count(); ++g) {
      const Group group = *plan_->group(g);
      ASSERT_EQ(group.tensor, g);
      for (uint32_t s = 0; s < group.encoding.stored.size(); ++s) {
        const StoredTensor& stored = group.encoding.stored[s];
        const uint64_t bytes = stored.size_bytes();
        const uint64_t item = item_bytes(stored.dtype);
        const uint64_t record = bytes == 0 ? 0 : (bytes + 4 + item - 1) / item * item;
        const auto content = std::span(file_).subspan(group.data_offsets[s], record);
        if (bytes > 0) {
          ASSERT_EQ(crc32(0, content), 0x2144DF1CU);
          ASSERT_EQ(crc32(0, content.first(bytes)), tensor_crc(*plan_, g, s, scrambled_bytes));
        }
        ASSERT_EQ(group.trailer_bytes[s], stored.constant.empty() ? record - bytes : 0);
        ASSERT_EQ(plan_->trailer(g, s, 1).size(), group.trailer_bytes[s]);
      }
    }
  }
}

TEST_F(RandomPlans, TilesMakeEveryStoredByteOnce) {
  for (int i = 0; i < kModels; ++i) {
    SCOPED_TRACE(i);
    ASSERT_NO_FATAL_FAILURE(plan(i));
    std::vector<ByteRange> made;
    for (uint32_t index = 0; index < plan_->tile_count(); ++index) {
      const Tile tile = plan_->tile(index);
      const Group group = *plan_->group(tile.group);
      ASSERT_TRUE(index >= group.tiles.first && index < group.tiles.end);
      ASSERT_GT(tile.units.count, 0U);
      for (uint32_t s = 0; s < group.encoding.stored.size(); ++s) {
        for (const ByteRange& range : plan_->tile_file_ranges(tile, s)) {
          ASSERT_FALSE(range.empty());
          const auto pieces = plan_->locate(range);
          ASSERT_EQ(pieces.size(), 1U);
          ASSERT_EQ(pieces[0].kind, PieceKind::kStored);
          ASSERT_EQ(pieces[0].group, tile.group);
          ASSERT_EQ(pieces[0].stored, s);
          ASSERT_EQ(pieces[0].stored_offset, range.offset - group.data_offsets[s]);
          made.push_back(range);
        }
      }
    }
    // In file order the tiles' ranges are the stored pieces, cut.
    std::ranges::sort(made, {}, &ByteRange::offset);
    auto next = made.begin();
    for (const Piece& piece : plan_->locate({0, plan_->size_bytes()})) {
      if (piece.kind != PieceKind::kStored) {
        continue;
      }
      uint64_t position = piece.range.offset;
      while (position < piece.range.end()) {
        ASSERT_NE(next, made.end());
        ASSERT_EQ(next->offset, position);
        position = (next++)->end();
      }
      ASSERT_EQ(position, piece.range.end());
    }
    ASSERT_EQ(next, made.end());
  }
}

TEST_F(RandomPlans, TilesForARangeAreThoseThatMakeItsBytes) {
  for (int i = 0; i < kModels; ++i) {
    SCOPED_TRACE(i);
    ASSERT_NO_FATAL_FAILURE(plan(i));
    for (int j = 0; j < 12; ++j) {
      const ByteRange range = random_range();
      std::set<uint32_t> expected;
      for (uint32_t index = 0; index < plan_->tile_count(); ++index) {
        const Tile tile = plan_->tile(index);
        const Group group = *plan_->group(tile.group);
        for (uint32_t s = 0; s < group.encoding.stored.size(); ++s) {
          for (const ByteRange& made : plan_->tile_file_ranges(tile, s)) {
            if (!made.intersect(range).empty()) {
              expected.insert(index);
            }
          }
          const ByteRange trailer{group.data_offsets[s] + group.encoding.stored[s].size_bytes(),
                                  group.trailer_bytes[s]};
          if (!trailer.intersect(range).empty()) {
            expected.insert(index);
          }
        }
      }
      std::set<uint32_t> actual;
      uint32_t previous_end = 0;
      bool is_first = true;
      for (const TileSpan& span : plan_->tiles_for(range)) {
        ASSERT_LT(span.first, span.end);
        ASSERT_TRUE(is_first || span.first > previous_end) << "spans that meet are one";
        is_first = false;
        previous_end = span.end;
        for (uint32_t index = span.first; index < span.end; ++index) {
          actual.insert(index);
        }
      }
      ASSERT_EQ(actual, expected);
    }
  }
}

}  // namespace
}  // namespace qcache

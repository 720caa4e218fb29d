#include "core/layout/torch_zip.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "core/base/digest.h"
#include "tests/layout/checkpoint_file.h"
#include "tests/layout/test_schemes.h"
#include "tests/support/plans.h"

namespace qcache {
namespace {

using testing::AllOf;
using testing::HasSubstr;

const TestScheme& copy_scheme() {
  static const TestScheme kScheme("copy", [](const TensorInfo& tensor) { return copy_encoding(tensor); });
  return kScheme;
}

const TestScheme& int8_scheme() {
  static const TestScheme kScheme("int8", int8_encoding);
  return kScheme;
}

std::shared_ptr<const LayoutPlan> plan_of(const SourceModel& model, const Scheme& scheme,
                                          const TorchZipOptions& options = {}) {
  auto plan = plan_torch_zip(model, scheme, options);
  EXPECT_TRUE(plan.has_value()) << plan.error().message;
  return plan ? *plan : nullptr;
}

std::string file_of(const LayoutPlan& plan, const TensorBytes& tensors = scrambled_bytes) {
  const auto bytes = make_bytes(plan, {0, plan.size_bytes()}, tensors);
  std::string text(bytes.size(), '\0');
  std::memcpy(text.data(), bytes.data(), bytes.size());
  return text;
}

// One tensor "w", FLOAT32 [2, 3], holding 0 to 5, as plain as it can be. Made by another program from the
// description of the format, not by this code.
TEST(TorchZip, GivesTheWorkedExampleByteForByte) {
  const struct {
    const char* hex = "";
    int times = 1;
  } expected[] = {
      {"504b03040a0000080000000021004288fda18b0000008b00000010001200617263686976652f646174612e706b6c46420e00"},
      {"5a", 14},
      {"80027d2858010000007763746f7263682e5f7574696c730a5f72656275696c645f74656e736f725f76320a28285807000000"
       "73746f7261676563746f7263680a466c6f617453746f726167650a58010000003058030000006370754b0774514b004b024b"
       "03864b034b01868963636f6c6c656374696f6e730a4f726465726564446963740a29527452752e504b03040a000008000000"
       "002100853de319060000000600000011000600617263686976652f627974656f72646572464202005a5a6c6974746c65504b"
       "03040a000008000000002100d19e675502000000020000000f000d00617263686976652f76657273696f6e46420900"},
      {"5a", 9},
      {"330a504b03040a0000080000000021001cdf44211c0000001c0000000e001200617263686976652f646174612f3046420e00"},
      {"5a", 14},
      {"000000000000803f0000004000004040000080400000a0401790e791504b01022d030a0000080000000021004288fda18b00"
       "00008b000000100000000000000000000000248100000000617263686976652f646174612e706b6c504b01022d030a000008"
       "000000002100853de31906000000060000001100000000000000000000002481cb000000617263686976652f627974656f72"
       "646572504b01022d030a000008000000002100d19e675502000000020000000f000000000000000000000024810601000061"
       "7263686976652f76657273696f6e504b01022d030a0000080000000021001cdf44211c0000001c0000000e00000000000000"
       "00000000248142010000617263686976652f646174612f30504b05060000000004000400f60000009c0100000000"},
  };
  std::string hex;
  for (const auto& part : expected) {
    for (int i = 0; i < part.times; ++i) {
      hex += part.hex;
    }
  }
  const auto plan =
      plan_of(make_model({make_tensor("w", DType::kF32, {2, 3})}), copy_scheme(),
              {.data_alignment = 64, .header_alignment = 0, .isolate_directory = false, .describe = false});
  ASSERT_EQ(plan->size_bytes(), 680U);
  const float values[] = {0, 1, 2, 3, 4, 5};
  const std::string file =
      file_of(*plan, [&](uint32_t /*group*/, uint32_t /*stored*/, uint64_t offset, std::span<std::byte> out) {
        std::memcpy(out.data(), std::as_bytes(std::span(values)).subspan(offset).data(), out.size());
      });
  EXPECT_EQ(to_hex({reinterpret_cast<const uint8_t*>(file.data()), file.size()}), hex);
  EXPECT_EQ(plan->group(0)->data_offsets, std::vector<uint64_t>{384});
  EXPECT_EQ(plan->group(0)->trailer_bytes, std::vector<uint32_t>{4});
}

TEST(TorchZip, KeepsEveryHeaderAndTheTailOnPagesWithoutTensorBytes) {
  constexpr uint64_t kPage = 4096;
  const auto plan = plan_of(
      make_model({make_tensor("a", DType::kBF16, {300, 7}), make_tensor("b", DType::kF32, {}),
                  make_tensor("empty", DType::kF32, {0}), make_tensor("fills.pages", DType::kU8, {2 * kPage - 4})}),
      int8_scheme());
  for (const Piece& piece : plan->locate({0, plan->size_bytes()})) {
    if (piece.kind == PieceKind::kStored) {
      EXPECT_EQ(piece.range.offset % kPage, 0U);
      // Its header is in the page before: no piece but a static one is there.
      const auto before = plan->locate({piece.range.offset - kPage, kPage});
      ASSERT_EQ(before.size(), 1U);
      EXPECT_EQ(before[0].kind, PieceKind::kStatic);
    }
  }
  const auto tail = plan->locate({plan->size_bytes() - kPage, kPage});
  ASSERT_EQ(tail.size(), 1U);
  EXPECT_EQ(tail[0].kind, PieceKind::kStatic);
  EXPECT_TRUE(plan->tiles_for({plan->size_bytes() - kPage, kPage}).empty());
  EXPECT_TRUE(plan->tiles_for({0, kPage}).empty());
}

TEST(TorchZip, TrailersCompleteTheItemAndHoldTheCrcOfAllBefore) {
  const auto plan = plan_of(make_model({make_tensor("f64", DType::kF64, {2}), make_tensor("u8", DType::kU8, {3}),
                                        make_tensor("empty", DType::kF64, {2, 0})}),
                            copy_scheme());
  const std::string text = "12345678";
  const uint32_t crc = crc32(0, std::as_bytes(std::span(text)));
  const uint32_t crc_with_zeros = crc32(crc, std::vector<std::byte>(4));
  const auto little_endian = [](uint32_t value) {
    std::vector<std::byte> bytes;
    for (int shift = 0; shift < 32; shift += 8) {
      bytes.push_back(static_cast<std::byte>(value >> shift & 0xFFU));
    }
    return bytes;
  };
  EXPECT_EQ(plan->trailer(1, 0, crc), little_endian(crc));
  std::vector<std::byte> eight(4);
  const auto end = little_endian(crc_with_zeros);
  eight.insert(eight.end(), end.begin(), end.end());
  EXPECT_EQ(plan->trailer(0, 0, crc), eight);
  EXPECT_TRUE(plan->trailer(2, 0, 0).empty());
}

TEST(TorchZip, ConstantsAreStaticToTheLastByteOfTheirTrailer) {
  const TestScheme odd("odd", odd_encoding);
  const auto plan = plan_of(make_model({make_tensor("v", DType::kF32, {9})}), odd);
  EXPECT_EQ(plan->tile_count(), 0U);
  const auto pieces = plan->locate({0, plan->size_bytes()});
  ASSERT_EQ(pieces.size(), 1U);
  EXPECT_EQ(pieces[0].kind, PieceKind::kStatic);
  EXPECT_EQ(plan->group(0)->trailer_bytes, (std::vector<uint32_t>{0, 0, 0}));
  EXPECT_TRUE(plan->tile_file_ranges({0, {0, 1}}, 0).empty());

  const std::string file = file_of(*plan);
  const std::string record = file.substr(plan->group(0)->data_offsets[1], 16);
  EXPECT_EQ(record.substr(0, 12), std::string("\x05\0\0\0\0\0\0\0\0\0\0\0", 12));
  EXPECT_EQ(crc32(0, std::as_bytes(std::span(record))), 0x2144DF1CU);
}

TEST(TorchZip, DescribesWhatItHoldsAndNothingOfWhereItWasMade) {
  SourceModel model = make_model({make_tensor("z.weight", DType::kBF16, {4, 8}), make_tensor("norm", DType::kBF16, {8}),
                                  make_tensor("größe", DType::kF32, {2, 2})});
  const std::string file = file_of(*plan_of(model, int8_scheme()));
  EXPECT_THAT(file,
              HasSubstr(R"({"qcache":1,"dtype":"int8","scheme_version":7,"rank":0,"quantized":["z.weight","größe"]})"));

  model.name = "shown otherwise";
  model.path = "/elsewhere";
  model.identity.files.push_back({.path = "/elsewhere/model.safetensors", .inode = 6});
  EXPECT_EQ(file_of(*plan_of(model, int8_scheme())), file);
  EXPECT_EQ(file_of(*plan_of(model, int8_scheme(), {.describe = false})).find("qcache"), std::string::npos);
}

TEST(TorchZip, LongFormsAppearWhereTheFileNeedsThem) {
  const auto size_of_directory = [](const LayoutPlan& plan, uint64_t last_offset, uint64_t last_size) {
    return plan.size_bytes() - (last_offset + last_size);
  };
  const TorchZipOptions plain{64, 0, false, false};
  // 2^32 - 1 - 4 bytes and their trailer are the first size that needs zip64; one byte less does not.
  for (const uint64_t bytes : {uint64_t{0xFFFFFFFF} - 5, uint64_t{0xFFFFFFFF} - 4}) {
    const auto plan = plan_of(make_model({make_tensor("w", DType::kU8, {bytes})}), copy_scheme(), plain);
    const bool large = bytes + 4 == 0xFFFFFFFF;
    const uint64_t directory = 62 + 63 + 61 + 60 + 22 + (large ? 20U : 0U);
    // The directory starts beyond 4 GiB in both.
    EXPECT_EQ(size_of_directory(*plan, plan->group(0)->data_offsets[0], bytes + 4), directory + 76);
  }
  const auto small = plan_of(make_model({make_tensor("w", DType::kU8, {100})}), copy_scheme(), plain);
  EXPECT_EQ(size_of_directory(*small, small->group(0)->data_offsets[0], 104), 62U + 63 + 61 + 60 + 22);
}

TEST(TorchZip, RefusesWhatCannotBeAFile) {
  const auto failure = [](const SourceModel& model, const TorchZipOptions& options = {}) {
    const auto plan = plan_torch_zip(
        model, TestScheme("rows", [](const TensorInfo& tensor) { return copy_encoding(tensor, tensor.shape.back()); }),
        options);
    EXPECT_FALSE(plan.has_value());
    return plan ? Error{} : plan.error();
  };
  const Shape vast = {3, (uint64_t{1} << 60)};
  auto error = failure(make_model(
      {make_tensor("a", DType::kU8, vast), make_tensor("b", DType::kU8, vast), make_tensor("c", DType::kU8, vast)}));
  EXPECT_EQ(error.kind, ErrorKind::kInvalidModel);
  EXPECT_THAT(error.message, AllOf(HasSubstr("'tiny'"), HasSubstr("2^63")));

  // The sum of offset and size would wrap around 64 bits.
  error = failure(make_model({make_tensor("a", DType::kU8, {(uint64_t{1} << 63) - 10000}),
                              make_tensor("b", DType::kU8, {(uint64_t{1} << 63) - 5})}));
  EXPECT_EQ(error.kind, ErrorKind::kInvalidModel);
  EXPECT_THAT(error.message, HasSubstr("2^63"));

  // Fits but for the directory.
  error = failure(make_model({make_tensor("a", DType::kU8, {(uint64_t{1} << 63) - 13000})}));
  EXPECT_EQ(error.kind, ErrorKind::kInvalidModel);
  EXPECT_THAT(error.message, HasSubstr("2^63"));

  error = failure(make_model({make_tensor("strides", DType::kU8, {0, uint64_t{1} << 40, uint64_t{1} << 40})}));
  EXPECT_EQ(error.kind, ErrorKind::kInvalidModel);
  EXPECT_THAT(error.message, AllOf(HasSubstr("'strides'"), HasSubstr("63 bits")));

  error = failure(
      make_model({make_tensor("a.weight_scale", DType::kF32, {4}), make_tensor("a.weight_scale", DType::kF32, {4})}));
  EXPECT_EQ(error.kind, ErrorKind::kInvalidModel);
  EXPECT_THAT(error.message, HasSubstr("'a.weight_scale'"));

  for (const TorchZipOptions& options : {TorchZipOptions{.data_alignment = 0}, TorchZipOptions{.data_alignment = 65536},
                                         TorchZipOptions{.header_alignment = 65536}}) {
    error = failure(make_model({}), options);
    EXPECT_EQ(error.kind, ErrorKind::kInvalidArgument);
    EXPECT_THAT(error.message, HasSubstr("alignments"));
  }
}

TEST(TorchZip, TilesAreNumberedAcrossGroups) {
  static const TestScheme kOdd("odd", odd_encoding);
  const auto plan =
      plan_of(make_model({make_tensor("constants", DType::kF32, {9}), make_tensor("matrix", DType::kF32, {2, 9}),
                          make_tensor("empty", DType::kF32, {2, 0}), make_tensor("scalar", DType::kF32, {})}),
              kOdd);
  ASSERT_EQ(plan->tile_count(), 3U);
  const Tile last_of_matrix = plan->tile(1);
  EXPECT_EQ(last_of_matrix.group, 1U);
  EXPECT_EQ(last_of_matrix.units.first, 2U);
  EXPECT_EQ(last_of_matrix.units.count, 1U);
  EXPECT_EQ(plan->tile(0).units.count, 2U);
  EXPECT_EQ(plan->tile(2).group, 3U);
}

TEST(TorchZip, PlansFilesThatJustFit) {
  const TestScheme rows("rows", [](const TensorInfo& tensor) { return copy_encoding(tensor, tensor.shape.back()); });
  const auto plan = plan_torch_zip(make_model({make_tensor("a", DType::kU8, {1, (uint64_t{1} << 63) - 40000})}), rows);
  ASSERT_TRUE(plan.has_value()) << plan.error().message;
  EXPECT_LT((*plan)->size_bytes(), uint64_t{1} << 63);
  EXPECT_EQ((*plan)->tiles_for({uint64_t{1} << 62, 1}), (std::vector<TileSpan>{{0, 1}}));
}

}  // namespace
}  // namespace qcache

#include "core/quant/encoding.h"

#include "core/quant/scheme.h"
#include "gmock/gmock.h"
#include "tests/quant/encode_tensor.h"

namespace qcache {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(Encoding, RowsMapToEqualPartsOfEachStoredTensor) {
  const Encoding encoding = find_scheme("nf4")->encoding({}, {}, tensor_of("a.q_proj.weight", DType::kBF16, {32, 128}));
  EXPECT_EQ(encoding.unit_count(), 32U);
  EXPECT_THAT(encoding.source_ranges({3, 2}), ElementsAre(ByteRange{3 * 256, 2 * 256}));
  EXPECT_THAT(encoding.stored_ranges(0, {3, 2}), ElementsAre(ByteRange{3 * 64, 2 * 64}));
  EXPECT_THAT(encoding.stored_ranges(1, {3, 2}), ElementsAre(ByteRange{3 * 8, 2 * 8}));
  EXPECT_EQ(encoding.unit_at(0, 0), 0U);
  EXPECT_EQ(encoding.unit_at(0, 63), 0U);
  EXPECT_EQ(encoding.unit_at(0, 64), 1U);
  EXPECT_EQ(encoding.unit_at(1, 32 * 8 - 1), 31U);
}

TEST(Encoding, TheLastUnitOfACastIsShorter) {
  const Encoding encoding = find_scheme("fp32")->encoding({}, {}, tensor_of("a.weight", DType::kF16, {20001}));
  EXPECT_EQ(encoding.unit_count(), 2U);
  EXPECT_THAT(encoding.source_ranges({0, 2}), ElementsAre(ByteRange{0, 40002}));
  EXPECT_THAT(encoding.source_ranges({1, 1}), ElementsAre(ByteRange{32768, 40002 - 32768}));
  EXPECT_THAT(encoding.stored_ranges(0, {1, 1}), ElementsAre(ByteRange{65536, 80004 - 65536}));
  EXPECT_EQ(encoding.unit_at(0, 80003), 1U);
}

TEST(Encoding, EmptyTensorsHaveNoUnits) {
  for (const char* scheme : {"fp32", "int8"}) {
    const Encoding encoding = find_scheme(scheme)->encoding({}, {}, tensor_of("a.weight", DType::kBF16, {0, 64}));
    EXPECT_EQ(encoding.unit_count(), 0U);
    EXPECT_GT(encoding.source_bytes_per_unit, 0U);
    EXPECT_EQ(encoding.stored.at(0).size_bytes(), 0U);
    EXPECT_THAT(encoding.source_ranges({0, 0}), IsEmpty());
  }
}

TEST(Encoding, ScalarsAreOneUnit) {
  const Encoding encoding = find_scheme("bf16")->encoding({}, {}, tensor_of("a.weight", DType::kF32, {}));
  EXPECT_EQ(encoding.unit_count(), 1U);
  EXPECT_EQ(encoding.stored.at(0).size_bytes(), 2U);
  EXPECT_THAT(encoding.stored_ranges(0, {0, 1}), ElementsAre(ByteRange{0, 2}));
}

TEST(Encoding, FoldedUnitsLieInBothHalves) {
  // 17 rows of 3 groups: 51 groups in 26 units, of which the last lacks its second one.
  const Encoding encoding =
      encoding_alone(*find_scheme("qint4"), tensor_of("a.q_proj.weight", DType::kBF16, {17, 384}));
  constexpr uint64_t kGroupBytes = 256;
  EXPECT_EQ(encoding.unit_count(), 26U);
  EXPECT_EQ(encoding.source_bytes_of_unit(), 2 * kGroupBytes);
  EXPECT_THAT(encoding.source_ranges({3, 2}),
              ElementsAre(ByteRange{3 * kGroupBytes, 2 * kGroupBytes}, ByteRange{29 * kGroupBytes, 2 * kGroupBytes}));
  EXPECT_THAT(encoding.source_ranges({24, 2}),
              ElementsAre(ByteRange{24 * kGroupBytes, 2 * kGroupBytes}, ByteRange{50 * kGroupBytes, kGroupBytes}));
  EXPECT_THAT(encoding.source_ranges({25, 1}), ElementsAre(ByteRange{25 * kGroupBytes, kGroupBytes}));
  EXPECT_THAT(encoding.stored_ranges(0, {3, 2}), ElementsAre(ByteRange{3 * 128, 2 * 128}));
  EXPECT_THAT(encoding.stored_ranges(1, {3, 2}), ElementsAre(ByteRange{3 * 2, 4}, ByteRange{29 * 2, 4}));
  EXPECT_EQ(encoding.stored_bytes_of_unit(1), 4U);
  EXPECT_EQ(encoding.unit_at(1, 29 * 2 + 1), 3U);
  EXPECT_EQ(encoding.unit_at(1, 25 * 2), 25U);
  EXPECT_EQ(encoding.unit_at(0, 25 * 128), 25U);
}

TEST(Encoding, TensorsMadeOnceAreUnitZeros) {
  const Encoding encoding = encoding_alone(*find_scheme("nvfp4"), tensor_of("a.q_proj.weight", DType::kBF16, {16, 64}));
  EXPECT_THAT(encoding.stored_ranges(2, {0, 3}), ElementsAre(ByteRange{0, 4}));
  EXPECT_THAT(encoding.stored_ranges(2, {1, 3}), IsEmpty());
  EXPECT_EQ(encoding.unit_at(2, 3), 0U);
  EXPECT_EQ(encoding.stored_bytes_of_unit(2), 4U);
}

TEST(Encoding, SizesOfConstantsAreThoseOfTheirBytes) {
  const Encoding encoding =
      find_scheme("qfloat8")->encoding({}, {}, tensor_of("a.q_proj.weight", DType::kF32, {16, 16}));
  EXPECT_EQ(encoding.stored.at(2).size_bytes(), 4U);
  EXPECT_EQ(encoding.stored.at(2).bytes_per_unit, 0U);
}

}  // namespace
}  // namespace qcache

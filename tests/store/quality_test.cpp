#include "core/store/quality.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "tests/support/result_matchers.h"

namespace qcache {
namespace {

using testing::DoubleNear;
using testing::IsEmpty;
using testing::Optional;

const std::vector<TensorQuality> kTensors = {
    {"model.layers.0.q_proj", 100, 1, 4096}, {"größe", 1e-90, 0, 1}, {"", 0, 1e77, ~uint64_t{0}}};

Sha256Digest digest(uint8_t value) {
  Sha256Digest out;
  out.fill(value);
  return out;
}

TEST(Quality, ComesBackAsItWas) {
  const auto back = decode_quality(digest(7), encode_quality(digest(7), kTensors));
  ASSERT_THAT(back, is_ok());
  EXPECT_EQ(*back, kTensors);
  const auto none = decode_quality(digest(7), encode_quality(digest(7), {}));
  ASSERT_THAT(none, is_ok());
  EXPECT_THAT(*none, IsEmpty());
}

TEST(Quality, OfOtherContentsIsNone) {
  const auto back = decode_quality(digest(8), encode_quality(digest(7), kTensors));
  ASSERT_THAT(back, is_ok());
  EXPECT_THAT(*back, IsEmpty());
}

TEST(Quality, CutOrLengthenedBytesAreCorrupt) {
  const std::vector<uint8_t> bytes = encode_quality(digest(7), std::span(kTensors).first(1));
  for (size_t size = 0; size < bytes.size(); ++size) {
    if (size != digest(7).size()) {  // which is a whole text of no tensors
      EXPECT_THAT(decode_quality(digest(7), std::span(bytes).first(size)), fails_with(ErrorKind::kCorrupt, {"damaged"}))
          << size;
    }
  }
  std::vector<uint8_t> longer = bytes;
  longer.push_back(0);
  EXPECT_THAT(decode_quality(digest(7), longer), fails_with(ErrorKind::kCorrupt, {"damaged"}));
  std::vector<uint8_t> long_name = bytes;
  std::fill_n(long_name.begin() + 32 + 24, 4, 0xff);
  EXPECT_THAT(decode_quality(digest(7), long_name), fails_with(ErrorKind::kCorrupt, {"damaged"}));
}

TEST(Quality, IsADecibelOnlyWhereThereIsOne) {
  EXPECT_THAT((TensorQuality{"x", 100, 1, 1}.sqnr_db()), Optional(DoubleNear(20, 1e-9)));
  EXPECT_THAT((TensorQuality{"x", 1, 2, 1}.sqnr_db()), Optional(DoubleNear(-3.0103, 1e-4)));
  EXPECT_EQ((TensorQuality{"exact", 1, 0, 1}.sqnr_db()), std::nullopt);
  EXPECT_EQ((TensorQuality{"zero", 0, 0, 1}.sqnr_db()), std::nullopt);
  EXPECT_EQ((TensorQuality{"zero that became something", 0, 1, 1}.sqnr_db()), std::nullopt);
  EXPECT_EQ((TensorQuality{"x", std::numeric_limits<double>::infinity(), 1, 1}.sqnr_db()), std::nullopt);
}

}  // namespace
}  // namespace qcache

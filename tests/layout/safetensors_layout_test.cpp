#include "core/layout/safetensors_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/model/safetensors.h"
#include "tests/layout/checkpoint_file.h"
#include "tests/layout/test_schemes.h"
#include "tests/support/plans.h"
#include "tests/support/result_matchers.h"

namespace qcache {
namespace {

const Scheme& int8_scheme() {
  static const TestScheme kScheme("int8", int8_encoding);
  return kScheme;
}

std::string text_of(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// The header's JSON with its padding.
std::string header_of(const LayoutPlan& plan) {
  const std::string length = text_of(make_bytes(plan, {0, 8}, zero_bytes));
  uint64_t size = 0;
  for (size_t i = 0; i < 8; ++i) {
    size |= uint64_t{static_cast<unsigned char>(length[i])} << (8 * i);
  }
  return text_of(make_bytes(plan, {8, size}, zero_bytes));
}

TEST(SafetensorsLayout, IsTheseBytesForASmallModel) {
  const SourceModel model =
      make_model({make_tensor("b", DType::kF32, {3}), make_tensor("a\"\n\xC3\xA9", DType::kI8, {}),
                  make_tensor("w", DType::kBF16, {2, 16}), make_tensor("e", DType::kF16, {0, 4})});
  static const TestScheme kCopy("copy", [](const TensorInfo& tensor) { return copy_encoding(tensor); });
  const auto plan = plan_safetensors(model, kCopy);
  ASSERT_THAT(plan, is_ok());
  const std::string expected = R"({"__metadata__":{"format":"pt","qcache":"copy 7"},)"
                               R"("w":{"dtype":"BF16","shape":[2,16],"data_offsets":[0,64]},)"
                               R"("b":{"dtype":"F32","shape":[3],"data_offsets":[64,76]},)"
                               "\"a\\\"\\n\xC3\xA9\":"
                               R"({"dtype":"I8","shape":[],"data_offsets":[76,77]},)"
                               R"("e":{"dtype":"F16","shape":[0,4],"data_offsets":[77,77]}})";
  const std::string header = header_of(**plan);
  EXPECT_EQ(header.substr(0, expected.size()), expected);
  EXPECT_EQ(header.find_first_not_of(' ', expected.size()), std::string::npos);
  EXPECT_EQ(header.size(), 4088U);
  EXPECT_EQ((*plan)->size_bytes(), 4096U + 77U);
}

TEST(SafetensorsLayout, OurReaderFindsEveryStoredTensorWithItsBytes) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 200; ++i) {
    SCOPED_TRACE(i);
    const SourceModel model = random_model(random, random() % 24);
    const auto plan = plan_safetensors(model, int8_scheme());
    ASSERT_THAT(plan, is_ok());
    const uint64_t size = (*plan)->size_bytes();
    const auto file = make_bytes(**plan, {0, size}, scrambled_bytes);
    const auto found = parse_safetensors_header(header_of(**plan), size);
    ASSERT_THAT(found, is_ok());
    std::map<std::string, const TensorInfo*> by_name;
    for (const TensorInfo& tensor : *found) {
      by_name[tensor.name] = &tensor;
    }
    size_t count = 0;
    for (uint32_t g = 0; g < (*plan)->group_count(); ++g) {
      const Group group = *(*plan)->group(g);
      for (uint32_t s = 0; s < group.encoding.stored.size(); ++s, ++count) {
        const StoredTensor& stored = group.encoding.stored[s];
        ASSERT_TRUE(by_name.contains(stored.name));
        const TensorInfo& tensor = *by_name[stored.name];
        ASSERT_EQ(tensor.dtype, stored.dtype);
        ASSERT_EQ(tensor.shape, stored.shape);
        std::vector<std::byte> expected(stored.size_bytes());
        if (stored.constant.empty()) {
          scrambled_bytes(g, s, 0, expected);
        } else {
          std::ranges::copy(std::as_bytes(std::span(stored.constant)), expected.begin());
        }
        ASSERT_TRUE(std::ranges::equal(std::span(file).subspan(tensor.data.offset, tensor.data.size), expected));
      }
    }
    ASSERT_EQ(by_name.size(), count);
  }
}

TEST(SafetensorsLayout, EveryTensorStartsAtAMultipleOfItsAlignment) {
  std::mt19937_64 random(2);
  for (int i = 0; i < 200; ++i) {
    const SourceModel model = random_model(random, random() % 24);
    const auto plan = plan_safetensors(model, int8_scheme());
    ASSERT_THAT(plan, is_ok());
    const auto tensors = *parse_safetensors_header(header_of(**plan), (*plan)->size_bytes());
    for (const TensorInfo& tensor : tensors) {
      if (tensor.data.size > 0) {
        const uint64_t alignment = std::min<uint64_t>(64, tensor.data.size & (~tensor.data.size + 1));
        ASSERT_EQ(tensor.data.offset % alignment, 0U) << tensor.name;
      }
    }
    ASSERT_TRUE(tensors.empty() || tensors.front().data.offset % 4096 == 0);
  }
}

TEST(SafetensorsLayout, RefusesTheNameThatTheFormatReserves) {
  EXPECT_THAT(plan_safetensors(make_model({make_tensor("__metadata__", DType::kF32, {2})}), int8_scheme()),
              fails_with(ErrorKind::kInvalidModel, {"__metadata__"}));
}

TEST(SafetensorsLayout, RefusesWhatTheSchemeRefuses) {
  TestScheme scheme("none", int8_encoding);
  scheme.refuse("not this one");
  EXPECT_THAT(plan_safetensors(make_model({}), scheme), fails_with(ErrorKind::kUnsupported, {"not this one"}));
}

TEST(SafetensorsLayout, RefusesAHeaderThatReadersRefuse) {
  std::vector<TensorInfo> tensors;
  for (int i = 0; i < 1700; ++i) {
    tensors.push_back(make_tensor(std::to_string(i) + std::string(60'000, 'n'), DType::kI8, {1}));
  }
  EXPECT_THAT(plan_safetensors(make_model(std::move(tensors)), int8_scheme()),
              fails_with(ErrorKind::kUnsupported, {".bin"}));
}

}  // namespace
}  // namespace qcache

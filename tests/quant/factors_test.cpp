#include "core/quant/factors.h"

#include <gtest/gtest.h>

#include "core/quant/scheme.h"

namespace qcache {
namespace {

SourceModel model_with(const std::string& name, const Shape& shape) {
  SourceModel model;
  TensorInfo tensor;
  tensor.name = name;
  tensor.dtype = DType::kBF16;
  tensor.shape = shape;
  tensor.data.size = tensor.element_count() * 2;
  model.tensors.push_back(tensor);
  return model;
}

std::optional<Encoding> factors(const SourceModel& model, std::string_view dtype, uint32_t rank,
                                std::string_view prefix = "") {
  const Scheme& scheme = *find_scheme(dtype);
  const TensorInfo& tensor = model.tensors[0];
  return factors_of(tensor, scheme.encoding(model, scheme.choose(model), tensor), rank, prefix);
}

TEST(Factors, AreTwoNamedTensorsMadeInOneUnit) {
  const SourceModel model = model_with("model.layers.0.mlp.up_proj.weight", {256, 128});
  const auto encoding = factors(model, "nf4", 8, "base_model.model.");
  ASSERT_TRUE(encoding);
  ASSERT_EQ(encoding->stored.size(), 2U);
  EXPECT_EQ(encoding->stored[kLoraA].name, "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight");
  EXPECT_EQ(encoding->stored[kLoraA].shape, (Shape{8, 128}));
  EXPECT_EQ(encoding->stored[kLoraB].name, "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight");
  EXPECT_EQ(encoding->stored[kLoraB].shape, (Shape{256, 8}));
  EXPECT_EQ(encoding->stored[kLoraB].dtype, DType::kF32);
  EXPECT_EQ(encoding->unit_count(), 1U);
  EXPECT_EQ(encoding->stored_ranges(kLoraB, {0, 1}), (std::vector<ByteRange>{{0, 256 * 8 * 4}}));
  EXPECT_FALSE(encoding->quantized);
}

TEST(Factors, OnlyWhatIsQuantizedHasThem) {
  EXPECT_FALSE(factors(model_with("model.norm.weight", {128}), "nf4", 8));
  EXPECT_FALSE(factors(model_with("model.embed_tokens.weight", {256, 128}), "nf4", 8));
  EXPECT_FALSE(factors(model_with("model.layers.0.mlp.up_proj.weight", {256, 128}), "bf16", 8));
  EXPECT_FALSE(factors(model_with("model.layers.0.mlp.up_proj.weight", {256, 128}), "nf4", 0));
}

TEST(Factors, ASetHoldsSixtyFourOrTheNextPowerOfTwo) {
  EXPECT_EQ(factor_set_size(1), 64U);
  EXPECT_EQ(factor_set_size(64), 64U);
  EXPECT_EQ(factor_set_size(65), 128U);
  EXPECT_EQ(factor_set_size(128), 128U);
}

// Cached factors would differ from those made anew if this changed without a new kFactorVersion.
TEST(Factors, TheSeedIsTheStartOfTheNamesSha256) {
  EXPECT_EQ(factor_seed(""), 0x141cfc9842c4b0e3U);  // e3b0c44298fc1c14...
  EXPECT_NE(factor_seed("a"), factor_seed("b"));
}

}  // namespace
}  // namespace qcache

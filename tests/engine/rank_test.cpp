// Ranks above 0: LoRA factors made by the real worker, held against the residual computed whole in memory.

#include <gmock/gmock.h>

#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "tests/engine/engine_fixture.h"
#include "tests/support/expected_file.h"
#include "tests/support/result_matchers.h"

namespace qcache {
namespace {

constexpr const char* kQuery = "model.layers.0.self_attn.q_proj";
constexpr const char* kUp = "model.layers.0.mlp.up_proj";

struct Tensor {
  std::vector<uint64_t> shape;
  std::vector<float> values;
};
using Tensors = std::map<std::string, Tensor>;

/// The fp32 tensors of a safetensors file.
Tensors tensors_in(std::span<const std::byte> file) {
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file.data(), sizeof header_bytes);
  const auto* const text = reinterpret_cast<const char*>(file.data());
  const auto header = nlohmann::json::parse(text + 8, text + 8 + header_bytes);
  Tensors out;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      continue;
    }
    EXPECT_EQ(entry.at("dtype"), "F32") << name;
    const uint64_t begin = entry.at("data_offsets").at(0);
    const uint64_t end = entry.at("data_offsets").at(1);
    Tensor tensor{entry.at("shape"), std::vector<float>((end - begin) / sizeof(float))};
    std::memcpy(tensor.values.data(), file.data() + 8 + header_bytes + begin, end - begin);
    out[name] = std::move(tensor);
  }
  return out;
}

double norm(const std::vector<float>& values) {
  double sum = 0;
  for (const double value : values) {
    sum += value * value;
  }
  return std::sqrt(sum);
}

/// residual - b * a
std::vector<float> compensated(std::vector<float> residual, const Tensor& a, const Tensor& b) {
  const uint64_t rank = a.shape.at(0);
  const uint64_t columns = a.shape.at(1);
  for (uint64_t i = 0; i < b.shape.at(0); ++i) {
    for (uint64_t k = 0; k < rank; ++k) {
      for (uint64_t j = 0; j < columns; ++j) {
        residual[i * columns + j] -= b.values[i * rank + k] * a.values[k * columns + j];
      }
    }
  }
  return residual;
}

class RankTest : public EngineTest {
 protected:
  RankTest() {
    builder_ = ModelBuilder();
    builder_.config(R"({"model_type":"llama","architectures":["LlamaForCausalLM"]})")
        .tensor("model.embed_tokens.weight", DType::kBF16, {256, 128})
        .tensor(std::string(kQuery) + ".weight", DType::kBF16, {256, 128})
        .tensor(std::string(kUp) + ".weight", DType::kF32, {128, 384})
        .tensor("model.norm.weight", DType::kBF16, {128});
    builder_.write(dir_ / "models/m");
  }

  static ArtifactName adapter(std::string_view dtype, uint32_t rank) {
    return ArtifactName{"m", find_scheme(dtype), rank, &container_adapter()};
  }
  Result<std::vector<std::byte>> read_file_of(const ArtifactName& name) {
    QCACHE_TRY_ASSIGN(const OpenArtifact opened, engine_->open(name));
    return read(*opened, ByteRange{0, opened->size_bytes()});
  }
};

class RankOfEveryScheme : public RankTest, public testing::WithParamInterface<const Scheme*> {};

TEST_P(RankOfEveryScheme, FactorsMakeGoodAPartOfWhatQuantizingLoses) {
  Engine& engine = start();
  const std::string_view dtype = GetParam()->name();
  const auto info = engine.describe(adapter(dtype, 16));
  if (expected_residual(dir_ / "models/m", dtype, std::string(kQuery) + ".weight").empty()) {
    EXPECT_THAT(info, fails_with(ErrorKind::kNotFound, {"only rank 0", "nothing in it is quantized"}));
    return;
  }
  ASSERT_TRUE(info) << info.error().message;
  const auto file = read_file_of(adapter(dtype, 16));
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->size(), info->size_bytes);
  const Tensors tensors = tensors_in(*file);
  for (const std::string module : {kQuery, kUp}) {
    const std::vector<float> residual = expected_residual(dir_ / "models/m", dtype, module + ".weight");
    const Tensor& a = tensors.at("base_model.model." + module + ".lora_A.weight");
    const Tensor& b = tensors.at("base_model.model." + module + ".lora_B.weight");
    const double before = norm(residual);
    const double after = norm(compensated(residual, a, b));
    EXPECT_GT(before, 0);
    EXPECT_LT(after, 0.95 * before) << module;  // a Gaussian residual of 128 x 256 loses a fifth
  }
}

INSTANTIATE_TEST_SUITE_P(All, RankOfEveryScheme, testing::ValuesIn(all_schemes().begin(), all_schemes().end()),
                         [](const testing::TestParamInfo<const Scheme*>& scheme) {
                           std::string name(scheme.param->name());
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

TEST_F(RankTest, FullRankGivesTheWeightBack) {
  start();
  const auto file = read_file_of(adapter("nf4", 128));
  ASSERT_TRUE(file) << file.error().message;
  const Tensors tensors = tensors_in(*file);
  const std::string module = kQuery;
  const std::vector<float> residual = expected_residual(dir_ / "models/m", "nf4", module + ".weight");
  EXPECT_LT(norm(compensated(residual, tensors.at("base_model.model." + module + ".lora_A.weight"),
                             tensors.at("base_model.model." + module + ".lora_B.weight"))),
            1e-4 * norm(residual));
}

TEST_F(RankTest, TheCheckpointHoldsTheWeightsOfRankZeroAndTheSameFactors) {
  Engine& engine = start();
  const ArtifactName base = name("nf4");
  ArtifactName ranked = base;
  ranked.rank = 8;
  const auto with = read_file_of(ranked);
  const auto without = read_file_of(base);
  const auto factors = read_file_of(adapter("nf4", 8));
  ASSERT_TRUE(with && without && factors);
  const auto model = *engine.model("m");
  TorchZipOptions options;
  options.rank = 8;
  const auto plan = *plan_torch_zip(model, *base.scheme, options);
  const auto plan_without = *plan_torch_zip(model, *base.scheme);
  const Tensors adapter_tensors = tensors_in(*factors);
  size_t factor_groups = 0;
  for (uint32_t g = 0; g < plan->group_count(); ++g) {
    const Group group = *plan->group(g);
    for (size_t s = 0; s < group.encoding.stored.size(); ++s) {
      const StoredTensor& stored = group.encoding.stored[s];
      const auto bytes = std::span(*with).subspan(group.data_offsets[s], stored.size_bytes());
      if (group.encoding.factored == nullptr) {
        const auto same = std::span(*without).subspan(plan_without->group(g)->data_offsets[s], stored.size_bytes());
        EXPECT_TRUE(std::ranges::equal(bytes, same)) << stored.name;
      } else {
        const Tensor& same = adapter_tensors.at("base_model.model." + stored.name);
        EXPECT_TRUE(std::ranges::equal(bytes, std::as_bytes(std::span(same.values)))) << stored.name;
        ++factor_groups;
      }
    }
  }
  EXPECT_EQ(factor_groups, 4U);
}

TEST_F(RankTest, FactorsAreTheSameBytesInAnotherCacheDirectory) {
  start();
  const auto once = read_file_of(adapter("int4", 8));
  engine_->stop();
  std::filesystem::remove_all(dir_ / "cache");
  start();
  EXPECT_EQ(read_file_of(adapter("int4", 8)), once);
}

TEST_F(RankTest, SmallRanksAreTheStartOfLargerOnes) {
  start();
  const auto small = read_file_of(adapter("nf4", 4));
  const auto large = read_file_of(adapter("nf4", 32));
  ASSERT_TRUE(small && large);
  const std::string name = std::string("base_model.model.") + kUp + ".lora_A.weight";
  const Tensor a4 = tensors_in(*small).at(name);
  const Tensor a32 = tensors_in(*large).at(name);
  EXPECT_TRUE(std::equal(a4.values.begin(), a4.values.end(), a32.values.begin()));
}

TEST_F(RankTest, RanksBeyondEveryWeightDoNotExist) {
  Engine& engine = start();
  EXPECT_TRUE(engine.describe(adapter("nf4", 128)));
  EXPECT_THAT(engine.describe(adapter("nf4", 129)), fails_with(ErrorKind::kNotFound, {"129", "is 128"}));
  EXPECT_THAT(engine.describe(adapter("nf4", 2'000'000'000)), fails_with(ErrorKind::kNotFound, {"is 128"}));
  EXPECT_TRUE(engine.errors().empty()) << "asking is no failure";
}

TEST_F(RankTest, InfinitiesAndNaNsInAWeightLeaveFiniteFactors) {
  std::vector<std::byte> bytes = TensorData::normal(5).make(DType::kF32, 0, 128 * 128);
  for (const auto& [at, value] :
       {std::pair(size_t{7}, std::nanf("")), std::pair(size_t{1000}, INFINITY), std::pair(size_t{9000}, -INFINITY)}) {
    std::memcpy(bytes.data() + at * sizeof(float), &value, sizeof value);
  }
  builder_ = ModelBuilder();
  builder_.config(R"({"model_type":"llama"})")
      .tensor(std::string(kUp) + ".weight", DType::kF32, {128, 128}, TensorData::bytes(bytes));
  builder_.write(dir_ / "models/m");
  start();
  for (const char* dtype : {"nf4", "int8", "fp8"}) {
    const auto file = read_file_of(adapter(dtype, 4));
    ASSERT_TRUE(file) << file.error().message;
    for (const auto& [name, tensor] : tensors_in(*file)) {
      EXPECT_TRUE(std::ranges::all_of(tensor.values, [](float x) { return std::isfinite(x); })) << dtype << name;
    }
  }
}

TEST_F(RankTest, OnlyRanksWithBytesAreListed) {
  Engine& engine = start();
  const Scheme& nf4 = *find_scheme("nf4");
  EXPECT_TRUE(engine.cached_ranks("m", nf4).empty());
  ASSERT_TRUE(read_file_of(adapter("nf4", 4)));
  const auto ranks = engine.cached_ranks("m", nf4);
  ASSERT_FALSE(ranks.empty());
  for (const ArtifactName& rank : ranks) {
    EXPECT_EQ(rank.rank, 4U);
    EXPECT_EQ(rank.container, &container_adapter());
  }
  EXPECT_TRUE(engine.cached_ranks("m", *find_scheme("int8")).empty());
  ASSERT_TRUE(engine.remove(adapter("nf4", 4)));
  EXPECT_TRUE(engine.cached_ranks("m", nf4).empty());
}

}  // namespace
}  // namespace qcache

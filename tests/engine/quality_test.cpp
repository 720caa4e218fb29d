// Quality figures: what is measured when a file is sealed, and what people get to see of it.

#include <gmock/gmock.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/engine/quality_json.h"
#include "core/engine/quality_probe.h"
#include "core/quant/number_formats.h"
#include "tests/engine/engine_fixture.h"
#include "tests/quant/encode_tensor.h"
#include "tests/support/result_matchers.h"

namespace qcache {
namespace {

using testing::IsEmpty;

const std::string kModule = "model.layers.0.self_attn.q_proj";

class QualityTest : public EngineTest {
 protected:
  /// Reads the whole file and waits until it is sealed and hashed; its figures.
  std::vector<TensorQuality> figures(const ArtifactName& artifact) {
    {
      const auto opened = engine_->open(artifact);
      EXPECT_THAT(opened, is_ok());
      EXPECT_THAT(read(**opened, ByteRange{0, (*opened)->size_bytes()}), is_ok());
    }
    for (int i = 0; i < 2000; ++i) {
      const auto info = engine_->describe(artifact);
      if (info && info->record && info->record->sha256) {
        return *engine_->quality(*info);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ADD_FAILURE() << "never hashed";
    return {};
  }

  nlohmann::json description(std::string_view dtype) {
    return nlohmann::json::parse(folder_text(dtype, "qcache.json"));
  }

  std::string folder_text(std::string_view dtype, std::string_view name) {
    const auto folder = engine_->folder("m", *find_scheme(dtype), 0);
    EXPECT_THAT(folder, is_ok());
    const auto file = std::ranges::find((*folder)->files, name, &FolderFile::name);
    const auto text = engine_->folder_text("m", *find_scheme(dtype), *file);
    EXPECT_THAT(text, is_ok());
    return *text;
  }
};

/// Of all elements of a weight, encoded and decoded whole.
double whole_sqnr(const Encoding& encoding, std::span<const std::byte> source) {
  const auto decoded = decode_tensor(encoding, encode_tensor(encoding, source, encoding.unit_count()),
                                     survey_of(encoding, source), encoding.unit_count());
  double signal = 0;
  double noise = 0;
  for (size_t i = 0; i < decoded.size(); ++i) {
    const double weight = load_as_float(encoding.source_dtype, &source[i * item_bytes(encoding.source_dtype)]);
    signal += weight * weight;
    noise += (weight - decoded[i]) * (weight - decoded[i]);
  }
  return 10 * std::log10(signal / noise);
}

TEST_F(QualityTest, SealedFilesHaveFiguresInEveryScheme) {
  Engine& engine = start();
  const auto model = engine.model("m");
  ASSERT_THAT(model, is_ok());
  const TensorInfo& weight = (*model)->tensors.at(1);
  ASSERT_EQ(weight.name, kModule + ".weight");
  const auto source = builder_.content(weight.name);
  for (const Scheme* scheme : all_schemes()) {
    SCOPED_TRACE(scheme->name());
    const Encoding encoding = scheme->encoding(**model, scheme->choose(**model), weight);
    for (const Container* const container : {&container_checkpoint(), &container_folder_weights()}) {
      const auto found = figures({"m", scheme, 0, container});
      if (!encoding.quantized) {
        EXPECT_THAT(found, IsEmpty());
        continue;
      }
      ASSERT_EQ(found.size(), 1U);
      EXPECT_EQ(found[0].module, kModule);
      EXPECT_GE(found[0].elements, uint64_t{256} << 10);
      EXPECT_LE(found[0].elements, uint64_t{512} << 10) << "a sample of 4 Mi";
      ASSERT_TRUE(found[0].sqnr_db());
      EXPECT_NEAR(*found[0].sqnr_db(), whole_sqnr(encoding, std::as_bytes(std::span(source))), 0.1);
    }
  }
}

TEST_F(QualityTest, TheDescriptionTellsThemOnceOneContainerIsSealed) {
  Engine& engine = start();
  EXPECT_FALSE(description("nf4").contains("sqnr_db"));
  const auto found = figures({"m", find_scheme("nf4"), 0, &container_checkpoint()});
  ASSERT_EQ(found.size(), 1U);
  const auto told = description("nf4");
  EXPECT_NEAR(told.at("sqnr_db").at(kModule).get<double>(), *found[0].sqnr_db(), 0.005);
  EXPECT_EQ(told.at("sqnr_measured_elements"), found[0].elements);
  EXPECT_EQ(told.at("quantized"), nlohmann::json::array({kModule})) << "all else stays";
  EXPECT_FALSE(description("int8").contains("sqnr_db")) << "another dtype";
  EXPECT_EQ(folder_text("nf4", "config.json").find("sqnr"), std::string::npos);

  ASSERT_THAT(engine.remove({"m", find_scheme("nf4"), 0}), is_ok());
  EXPECT_FALSE(description("nf4").contains("sqnr_db"));
  EXPECT_EQ(figures({"m", find_scheme("nf4"), 0, &container_folder_weights()}), found) << "the same weights";
  EXPECT_EQ(description("nf4"), told);
}

TEST_F(QualityTest, FilesMadeByOthersAreMeasuredToo) {
  // Tiles of another process, or of this one before it was killed: here the engine before.
  const auto expected = [&] {
    start();
    auto found = figures(name("nf4-dq"));
    EXPECT_THAT(engine_->remove(name("nf4-dq")), is_ok());
    const auto opened = engine_->open(name("nf4-dq"));
    EXPECT_THAT(read(**opened, ByteRange{0, (*opened)->size_bytes() / 2}), is_ok());
    return found;
  }();
  start();
  EXPECT_EQ(figures(name("nf4-dq")), expected);
}

TEST_F(QualityTest, ASourceThatCannotBeReadLeavesThemUnknown) {
  Engine& engine = start();
  const auto model = engine.model("m");
  ASSERT_THAT(model, is_ok());
  const auto plan = *plan_torch_zip(*model, *find_scheme("int8"));
  uint64_t tile_writes = plan->tile_count();  // their marks
  for (uint32_t index = 0; index < plan->tile_count(); ++index) {
    const Tile tile = plan->tile(index);
    for (uint32_t i = 0; i < plan->group(tile.group)->encoding.stored.size(); ++i) {
      tile_writes += plan->tile_file_ranges(tile, i).size();
    }
  }
  // The write after the last tile's is the sealer's first.
  const auto opened = engine.open(name());
  env_.before(EnvCall::kWriteAt, tile_writes + 1, [&] { env_.fail_all(EnvCall::kReadAt, EIO, "model.safetensors"); });
  EXPECT_THAT(figures(name()), IsEmpty());
  EXPECT_FALSE(description("int8").contains("sqnr_db"));
}

TEST_F(QualityTest, WhatHasNoNumberIsNull) {
  const std::vector<float> nan_and_ones = [] {
    std::vector<float> values(64 * 64, 0.5F);
    values[0] = std::numeric_limits<float>::quiet_NaN();
    values[1] = -std::numeric_limits<float>::infinity();
    return values;
  }();
  const auto bytes = std::as_bytes(std::span(nan_and_ones));
  ModelBuilder()
      .config(R"({"model_type":"llama"})")
      .tensor("a.up_proj.weight", DType::kF32, {64, 64}, TensorData::constant(0))
      .tensor("b.up_proj.weight", DType::kF32, {64, 64}, TensorData::bytes({bytes.begin(), bytes.end()}))
      .tensor("c.up_proj.weight", DType::kF32, {64, 64}, TensorData::constant(0.75))
      .tensor("d.up_proj.weight", DType::kF32, {64, 64})
      .write(dir_ / "models/m");
  start();
  const auto found = figures(name("nf4"));
  ASSERT_EQ(found.size(), 4U);
  EXPECT_EQ(found[1].elements, 64U * 64 - 2);
  EXPECT_EQ(found[1].noise, 0) << "what is not finite counts nowhere";
  const auto told = description("nf4").at("sqnr_db");
  for (const char* exact : {"a.up_proj", "b.up_proj", "c.up_proj"}) {
    EXPECT_TRUE(told.at(exact).is_null()) << exact;
  }
  EXPECT_NEAR(told.at("d.up_proj").get<double>(), 20.7, 0.5);
}

TEST(QualitySample, IsSpreadFromTheFirstUnitToTheLast) {
  const auto encoding_of = [](uint64_t rows, uint64_t columns) {
    Encoding encoding;
    encoding.source_dtype = DType::kBF16;
    encoding.source_bytes = rows * columns * 2;
    encoding.source_bytes_per_unit = columns * 2;
    encoding.row_elements = columns;
    return encoding;
  };
  struct Case {
    uint64_t rows;
    uint64_t columns;
    size_t runs;
    uint64_t units_per_run;
  };
  for (const Case& c : {Case{4096, 4096, 16, 4}, Case{65, 4096, 16, 4}, Case{100'000, 16, 16, 1024},
                        Case{1000, 100'000, 2, 1}, Case{40, 40'000, 6, 1}}) {
    SCOPED_TRACE(c.columns);
    const auto sample = quality_sample(encoding_of(c.rows, c.columns));
    ASSERT_EQ(sample.size(), c.runs);
    EXPECT_EQ(sample.front().first, 0U);
    EXPECT_EQ(sample.back().end(), c.rows);
    for (size_t i = 0; i < sample.size(); ++i) {
      EXPECT_EQ(sample[i].count, c.units_per_run);
      EXPECT_TRUE(i == 0 || sample[i].first >= sample[i - 1].end());
    }
  }
  const auto two = quality_sample(encoding_of(4096, 4096), 2);
  ASSERT_EQ(two.size(), 2U);
  EXPECT_EQ(two[0].count, 32U);
  EXPECT_EQ(two[1].first, 4096U - 32);
  const auto whole = quality_sample(encoding_of(64, 4096));
  ASSERT_EQ(whole.size(), 1U);
  EXPECT_EQ(whole[0].count, 64U);
  EXPECT_THAT(quality_sample(encoding_of(0, 4096)), IsEmpty());
}

TEST(QualitySummary, NamesTheMedianAndTheWorst) {
  std::vector<TensorQuality> tensors;
  for (int i = 0; i < 8; ++i) {
    tensors.push_back({"w" + std::to_string(i), std::pow(10.0, (40 - i) / 10.0), 1, 100});
  }
  tensors.push_back({"exact", 1, 0, 100});
  const auto summary = nlohmann::ordered_json::parse(quality_summary(tensors));
  EXPECT_EQ(summary.dump(), R"({"weights":9,"measured_elements":900,"median_db":37.0,)"
                            R"("worst_db":{"w7":33.0,"w6":34.0,"w5":35.0,"w4":36.0,"w3":37.0}})");
  EXPECT_EQ(nlohmann::json::parse(quality_summary(std::span(tensors).last(1))).at("median_db"), nullptr);
}

}  // namespace
}  // namespace qcache

// Models that lie in torch checkpoints are served as if they lay in safetensors files.

#include <string>
#include <vector>

#include "tests/engine/engine_fixture.h"
#include "tests/support/result_matchers.h"
#include "tests/support/test_files.h"
#include "tests/support/torch_file.h"

namespace qcache {
namespace {

constexpr size_t kItem = 2;  // of bf16

std::string transposed(std::string_view bytes, size_t rows, size_t columns) {
  std::string out;
  for (size_t c = 0; c < columns; ++c) {
    for (size_t r = 0; r < rows; ++r) {
      out += bytes.substr((r * columns + c) * kItem, kItem);
    }
  }
  return out;
}

/// The rows with as many columns of another tensor before them.
std::string widened(std::string_view bytes, size_t rows, size_t columns) {
  std::string out;
  for (size_t r = 0; r < rows; ++r) {
    out += std::string(columns * kItem, 'x') + std::string(bytes.substr(r * columns * kItem, columns * kItem));
  }
  return out;
}

class TorchSourceTest : public testing::Test {
 protected:
  // One weight each that lies as usual, transposed, and as columns of a wider one, all of several tiles; and tied ones.
  TorchSourceTest() {
    const std::string layer = "model.layers.0.self_attn.";
    model_.config(R"({"model_type":"llama","architectures":["LlamaForCausalLM"]})")
        .tensor("model.embed_tokens.weight", DType::kBF16, {64, 512}, TensorData::normal(1))
        .tensor("lm_head.weight", DType::kBF16, {64, 512}, TensorData::normal(1))
        .tensor(layer + "q_proj.weight", DType::kBF16, {3000, 1024})
        .tensor(layer + "k_proj.weight", DType::kBF16, {3000, 1024})
        .tensor(layer + "v_proj.weight", DType::kBF16, {1024, 3000})
        .tensor("model.norm.weight", DType::kBF16, {512});
    model_.write(dir_ / "safetensors/m");

    const auto bytes = [&](const std::string& name) { return std::string(as_text(model_.content(name))); };
    storages_ = {{"0", bytes("lm_head.weight")},
                 {"1", bytes(layer + "q_proj.weight")},
                 {"2", transposed(bytes(layer + "k_proj.weight"), 3000, 1024)},
                 {"3", widened(bytes(layer + "v_proj.weight"), 1024, 3000)},
                 {"4", bytes("model.norm.weight")}};
    views_ = {view("model.embed_tokens.weight", 0, 0, {64, 512}, {512, 1}),
              view("lm_head.weight", 0, 0, {64, 512}, {512, 1}),
              view(layer + "q_proj.weight", 1, 0, {3000, 1024}, {1024, 1}),
              view(layer + "k_proj.weight", 2, 0, {3000, 1024}, {1, 3000}),
              view(layer + "v_proj.weight", 3, 3000, {1024, 3000}, {6000, 1}),
              view("model.norm.weight", 4, 0, {512}, {1})};
  }

  [[nodiscard]] TorchView view(const std::string& name, size_t storage, int64_t offset, std::vector<int64_t> shape,
                               std::vector<int64_t> strides) const {
    return {name,
            storages_[storage].first,
            "BFloat16Storage",
            static_cast<int64_t>(storages_[storage].second.size() / kItem),
            offset,
            std::move(shape),
            std::move(strides)};
  }

  std::string served(const std::string& root, std::string_view dtype) {
    EngineOptions options;
    options.roots = {dir_ / root};
    options.cache_directory = dir_ / ("cache-" + root);
    auto engine = Engine::start(Env::posix(), options);
    EXPECT_THAT(engine, is_ok());
    const auto file = (*engine)->open(ArtifactName{"m", find_scheme(dtype), 0});
    EXPECT_THAT(file, is_ok());
    if (!file) {
      return {};
    }
    std::promise<std::string> answer;
    (*file)->read(ByteRange{0, (*file)->size_bytes()}, ReadIntent::kWanted,
                  [&](Result<std::span<const std::byte>> bytes) {
                    EXPECT_THAT(bytes, is_ok());
                    answer.set_value(bytes ? std::string(reinterpret_cast<const char*>(bytes->data()), bytes->size())
                                           : std::string());
                  });
    return answer.get_future().get();
  }

  TempDir dir_;
  ModelBuilder model_;
  std::vector<std::pair<std::string, std::string>> storages_;
  std::vector<TorchView> views_;
};

TEST_F(TorchSourceTest, ServesTheBytesOfTheSameModelInSafetensors) {
  const std::string config = read_file(dir_ / "safetensors/m/config.json");
  write_file(dir_ / "zip/m/config.json", config);
  write_file(dir_ / "zip/m/pytorch_model.bin", torch_zip(pickle_tensors(views_), storages_));
  auto counted = storages_;
  for (auto& [key, bytes] : counted) {
    bytes.insert(0, little_endian(bytes.size() / kItem, 8));
  }
  write_file(dir_ / "legacy/m/config.json", config);
  write_file(dir_ / "legacy/m/net.pth", torch_legacy(pickle_tensors(views_, true), counted));
  for (const char* dtype : {"bf16", "int8", "nf4"}) {
    const std::string expected = served("safetensors", dtype);
    ASSERT_FALSE(expected.empty());
    // Not EXPECT_EQ, which would print megabytes.
    EXPECT_TRUE(served("zip", dtype) == expected) << dtype;
    EXPECT_TRUE(served("legacy", dtype) == expected) << dtype;
  }
}

}  // namespace
}  // namespace qcache

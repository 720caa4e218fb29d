#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string_view>

#include "core/engine/engine.h"
#include "core/layout/torch_zip.h"
#include "tests/engine/artifact_reading.h"
#include "tests/support/fake_env.h"
#include "tests/support/model_builder.h"
#include "tests/support/temp_dir.h"

namespace qcache {

/// An engine over one small model "m" in private directories, with an Env that fails on demand.
class EngineTest : public testing::Test {
 protected:
  // Several tiles: 3 of q (4 MiB of int8 each source row block), plus small ones.
  EngineTest() {
    builder_.config(R"({"model_type":"llama","architectures":["LlamaForCausalLM"]})")
        .tensor("model.embed_tokens.weight", DType::kBF16, {256, 512})
        .tensor("model.layers.0.self_attn.q_proj.weight", DType::kBF16, {2048, 2048})
        .tensor("model.layers.0.input_layernorm.weight", DType::kBF16, {512});
    builder_.write(dir_ / "models/m");
  }

  Engine& start(unsigned threads = 2) {
    EngineOptions options;
    options.roots = {dir_ / "models"};
    options.cache_directory = dir_ / "cache";
    options.threads = threads;
    auto engine = Engine::start(env_, options);
    EXPECT_TRUE(engine) << engine.error().message;
    engine_ = std::move(*engine);
    return *engine_;
  }

  static ArtifactName name(std::string_view dtype = "int8") { return ArtifactName{"m", find_scheme(dtype), 0}; }

  Result<std::vector<std::byte>> read_all(std::string_view dtype = "int8") {
    QCACHE_TRY_ASSIGN(const OpenArtifact opened, engine_->open(name(dtype)));
    return qcache::read(*opened, ByteRange{0, opened->size_bytes()});
  }

  /// Waits for the file to be sealed; false after 20 s.
  bool sealed(std::string_view dtype = "int8") { return reaches(ArtifactState::kSealed, dtype); }

  bool reaches(ArtifactState state, std::string_view dtype = "int8") {
    return eventually([&] {
      const auto info = engine_->describe(name(dtype));
      return info && info->state == state;
    });
  }

  /// The bytes of a file that was made, sealed and removed: the next read makes it anew.
  Result<std::vector<std::byte>> made_and_removed() {
    auto bytes = read_all();
    EXPECT_TRUE(bytes && sealed() && engine_->remove(name()));
    return bytes;
  }

  uint32_t tile_count(std::string_view dtype = "int8") {
    const auto model = engine_->model("m");
    return (*plan_torch_zip(*model, *find_scheme(dtype)))->tile_count();
  }

  TempDir dir_;
  ModelBuilder builder_;
  FakeEnv env_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace qcache

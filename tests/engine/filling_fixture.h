#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <vector>

#include "core/engine/filling_artifact.h"
#include "tests/engine/artifact_reading.h"
#include "tests/support/fake_env.h"
#include "tests/support/model_builder.h"
#include "tests/support/temp_dir.h"

namespace qcache {

/// What the engine's parts are made of, without an engine: a small model, a store, and its files being made.
class FillingFixture : public testing::Test, protected FillingObserver {
 protected:
  // 3 tiles of q_proj, and one for each other tensor.
  FillingFixture() {
    ModelBuilder()
        .config(R"({"model_type":"llama"})")
        .tensor("model.embed_tokens.weight", DType::kBF16, {256, 512})
        .tensor("model.layers.0.self_attn.q_proj.weight", DType::kBF16, {2048, 2048})
        .tensor("model.layers.0.input_layernorm.weight", DType::kBF16, {512})
        .write(dir_ / "m");
    auto read = read_source_model(env_, dir_ / "m", "m");
    EXPECT_TRUE(read) << read.error().message;
    model_ = std::make_shared<const SourceModel>(std::move(*read));
    auto directory = CacheDirectory::open(env_, dir_ / "cache");
    EXPECT_TRUE(directory);
    auto store = Store::open(env_, std::move(*directory));
    EXPECT_TRUE(store) << store.error().message;
    store_ = std::move(*store);
  }
  ~FillingFixture() override { workshop_.stop(); }

  [[nodiscard]] static ArtifactName name(const char* dtype = "int8") { return {"m", find_scheme(dtype), 0}; }
  [[nodiscard]] std::string base(const char* dtype = "int8") const {
    return base_file_name_of(name(dtype), model_->path);
  }

  /// Begins a file or goes on with it, as another process would.
  std::shared_ptr<FillingArtifact> artifact(const char* dtype = "int8") {
    const ArtifactName of = name(dtype);
    auto plan = of.container->plan_of(model_, *of.scheme, 0);
    auto source = SourceReader::open(env_, model_, stats_);
    EXPECT_TRUE(plan && source);
    const FillingKey key{base(dtype), of.virtual_path(), recipe_of(of, *model_), (*plan)->size_bytes(),
                         (*plan)->tile_count()};
    auto pair = store_->open_filling(key);
    EXPECT_TRUE(pair && *pair);
    FillingObserver& observer = *this;
    return std::make_shared<FillingArtifact>(of, std::move(*plan), std::move(*source), std::move(*pair), env_,
                                             workshop_, stats_, observer);
  }

  static Result<std::vector<std::byte>> read_all(Artifact& artifact) {
    return read(artifact, ByteRange{0, artifact.size_bytes()});
  }

  void on_all_made(const std::shared_ptr<FillingArtifact>& /*artifact*/) override { ++all_made_; }
  void on_failure(const std::shared_ptr<FillingArtifact>& /*artifact*/, const Error& /*error*/) override { ++failed_; }

  TempDir dir_;
  FakeEnv env_;
  std::shared_ptr<const SourceModel> model_;
  std::shared_ptr<Store> store_;
  Stats stats_;
  Workshop workshop_{2};
  std::atomic<int> all_made_{0};
  std::atomic<int> failed_{0};
};

}  // namespace qcache

#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/program/cached_model.h"
#include "core/program/program_model.h"
#include "core/store/cache_directory.h"
#include "tests/support/expected_file.h"
#include "tests/support/model_builder.h"
#include "tests/support/result_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_files.h"

namespace qcache {

/// A program that has the tensors of a small model in memory, and a cache directory.
class ProgramTest : public testing::Test {
 protected:
  ProgramTest() {
    add("model.embed_tokens.weight", DType::kBF16, {64, 256});
    add("model.layers.0.self_attn.q_proj.weight", DType::kBF16, {256, 256});
    add("model.layers.0.self_attn.k_proj.weight", DType::kBF16, {128, 256});
    add("model.norm.weight", DType::kF32, {256});
    add("empty", DType::kF16, {0, 3});
    builder_.config(R"({"model_type":"llama","architectures":["LlamaForCausalLM"]})");
  }

  /// The same tensors as the folder's, in another order.
  [[nodiscard]] std::vector<ProgramTensor> tensors() {
    contents_.clear();
    contents_.reserve(described_.size());
    std::vector<ProgramTensor> out;
    for (const TensorInfo& tensor : described_) {
      contents_.push_back(builder_.content(tensor.name));
      out.insert(out.begin(), {tensor.name, tensor.dtype, tensor.shape, {}, contents_.back()});
    }
    return out;
  }

  [[nodiscard]] std::string folder() const { return dir_ / "models/m"; }
  [[nodiscard]] ModelSource source(const std::string& dtype) const {
    return {.model_path = folder(), .weight_dtype = dtype};
  }
  [[nodiscard]] std::string file(const std::string& dtype) const { return artifact_file_name(folder(), dtype, 0); }
  [[nodiscard]] std::string path(const std::string& dtype) const { return dir_ / ("cache/" + file(dtype)); }
  Status save(const std::string& dtype) {
    return save_program_model(Env::posix(), tensors(), path(dtype), source(dtype));
  }

  TempDir dir_;
  ModelBuilder builder_;
  std::vector<TensorInfo> described_;

 private:
  void add(const std::string& name, DType dtype, const Shape& shape) {
    builder_.tensor(name, dtype, shape);
    described_.push_back({.name = name, .dtype = dtype, .shape = shape, .data = {}});
  }

  std::vector<std::vector<std::byte>> contents_;
};

}  // namespace qcache

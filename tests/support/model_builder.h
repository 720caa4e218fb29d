#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/dtype.h"
#include "core/model/tensor.h"

namespace qcache {

/// What a test tensor holds. Element i is a function of the seed and i alone, so any range can be made
/// without the rest, and is the same on every machine.
class TensorData {
 public:
  /// Normally distributed to 4.9 sigma (a sum of eight uniforms) in float dtypes; uniform bits in the
  /// others (0 or 1 in BOOL, never NaN in F8).
  static TensorData normal(uint64_t seed, double sigma = 0.02);
  /// `value` rounded to the dtype (F8: only 0).
  static TensorData constant(double value);
  /// Zeros that take no disk space: for models of many GB.
  static TensorData hole();
  /// These very bytes; there must be as many as the shape needs.
  static TensorData bytes(std::vector<std::byte> bytes);

  /// The bytes of elements [first, first + count).
  [[nodiscard]] std::vector<std::byte> make(DType dtype, uint64_t first, uint64_t count) const;
  [[nodiscard]] bool is_hole() const { return kind_ == Kind::kHole; }

 private:
  enum class Kind { kNormal, kConstant, kHole, kBytes };
  Kind kind_ = Kind::kHole;
  uint64_t seed_ = 0;
  double value_ = 0;
  std::vector<std::byte> bytes_;
};

/// Writes small (or large and sparse) models for tests:
///
///   TempDir dir;
///   ModelBuilder model;
///   model.config(R"({"model_type":"qwen2"})")
///       .tensor("model.embed_tokens.weight", DType::kBF16, {64, 32})
///       .tensor("lm_head.weight", DType::kF32, {64, 32}, TensorData::normal(7))
///       .tensor("big.weight", DType::kBF16, {100000, 8192}, TensorData::hole());
///   model.write(dir / "m");               // or write_hub(dir.path(), "org--name"); shards(2) before either
///   model.content("lm_head.weight")       // the bytes that were written
///
/// Errors throw std::runtime_error. One thread.
class ModelBuilder {
 public:
  /// Adds a tensor; without `data`, normal with a seed made from the name. Tensors lie in the files in the
  /// order in which they were added.
  ModelBuilder& tensor(std::string name, DType dtype, Shape shape);
  ModelBuilder& tensor(std::string name, DType dtype, Shape shape, TensorData data);
  /// Text of config.json; without it there is none.
  ModelBuilder& config(std::string json);
  /// One more file in the folder, such as "tokenizer.json".
  ModelBuilder& file(std::string name, std::string content);
  /// From 1 on: model-0000i-of-0000n.safetensors and an index. 0, the default: one model.safetensors.
  ModelBuilder& shards(size_t count);

  /// Writes the model into `folder` (made where missing; files are overwritten in place).
  void write(const std::string& folder) const;
  /// Writes `hub/models--<repo>` as the Hugging Face hub lays it out: blobs, links in snapshots/<commit>,
  /// refs/main = commit. Returns the snapshot's folder. Call again with another commit to update the repo.
  // NOLINTNEXTLINE(modernize-use-nodiscard): often called for what it writes
  std::string write_hub(const std::string& hub, const std::string& repo,
                        const std::string& commit = kDefaultCommit) const;

  /// All bytes of a tensor as written.
  [[nodiscard]] std::vector<std::byte> content(std::string_view name) const;

  static constexpr const char* kDefaultCommit = "0123456789abcdef0123456789abcdef01234567";

 private:
  struct Tensor {
    std::string name;
    DType dtype = DType::kF32;
    Shape shape;
    TensorData data;
  };
  struct Text {
    std::string name;
    std::string content;
  };
  [[nodiscard]] std::vector<std::vector<const Tensor*>> split() const;
  [[nodiscard]] std::string index_json() const;
  [[nodiscard]] std::string shard_name(size_t shard) const;
  static void write_safetensors(const std::string& path, const std::vector<const Tensor*>& tensors);

  std::vector<Tensor> tensors_;
  std::vector<Text> texts_;
  size_t shards_ = 0;
};

/// A whole safetensors file in memory from header text and data: `u64 N | json | data`. For files that
/// break the rules; nothing is checked.
[[nodiscard]] std::string safetensors_file(std::string_view json, std::string_view data = {});

}  // namespace qcache

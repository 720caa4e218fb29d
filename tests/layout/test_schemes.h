#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/source_model.h"
#include "core/quant/loaders/dense.h"
#include "core/quant/scheme.h"

namespace qcache {

/// A scheme whose encoding is a function given by the test.
class TestScheme final : public Scheme {
 public:
  using Encode = std::function<Encoding(const TensorInfo&)>;
  TestScheme(std::string name, Encode encode) : name_(std::move(name)), encode_(std::move(encode)) {}
  void refuse(std::string why) { refusal_ = std::move(why); }

  [[nodiscard]] std::string_view name() const override { return name_; }
  [[nodiscard]] std::span<const std::string_view> aliases() const override { return {}; }
  [[nodiscard]] uint32_t version() const override { return 7; }
  [[nodiscard]] std::optional<std::string> refusal(const SourceModel& /*model*/) const override { return refusal_; }
  [[nodiscard]] Encoding encoding(const SourceModel& /*model*/, const ModelChoices& /*choices*/,
                                  const TensorInfo& tensor) const override {
    return encode_(tensor);
  }
  [[nodiscard]] const LoaderFamily& loaders() const override { return loaders_; }

 private:
  std::string name_;
  Encode encode_;
  std::optional<std::string> refusal_;
  DenseLoaders loaders_;
};

/// A model of these tensors (their `data` is set as if one file held them in order).
[[nodiscard]] SourceModel make_model(std::vector<TensorInfo> tensors);
[[nodiscard]] TensorInfo make_tensor(std::string name, DType dtype, Shape shape);
/// `count` tensors of all dtypes and of ranks 0 to 5, some of them empty; names unique, some not ASCII.
[[nodiscard]] SourceModel random_model(std::mt19937_64& random, size_t count);

/// The tensor as it is; a unit is `unit_elements` elements.
[[nodiscard]] Encoding copy_encoding(const TensorInfo& tensor, uint64_t unit_elements = 1024);
/// Matrices of wide floats as int8 rows, a scale per row and a constant; others copied.
[[nodiscard]] Encoding int8_encoding(const TensorInfo& tensor);
/// What no real scheme does at once: 8-byte and 1-byte items in one group, empty stored tensors, vectors that
/// store constants only, and so few units per tile that small tensors have many tiles.
[[nodiscard]] Encoding odd_encoding(const TensorInfo& tensor);

}  // namespace qcache

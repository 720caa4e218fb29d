#include "core/engine/residual.h"

#include <gmock/gmock.h>

#include <memory>

#include "core/base/env.h"
#include "core/quant/scheme.h"
#include "tests/support/model_builder.h"
#include "tests/support/result_matchers.h"

namespace qcache {
namespace {

constexpr uint64_t kSide = 2048;

/// One weight in memory; counts the bytes that are read of it.
class CountedMemory final : public SourceReader {
 public:
  CountedMemory(std::shared_ptr<const SourceModel> model, std::vector<std::byte> memory, Stats& stats)
      : SourceReader(Env::posix(), std::move(model), stats), memory_(std::move(memory)) {}

  [[nodiscard]] uint64_t bytes_read() const { return bytes_read_; }

 private:
  [[nodiscard]] Status read_file(size_t /*file*/, uint64_t position, std::span<std::byte> out) const override {
    std::copy_n(memory_.begin() + static_cast<ptrdiff_t>(position), out.size(), out.begin());
    bytes_read_ += out.size();
    return {};
  }

  const std::vector<std::byte> memory_;
  mutable uint64_t bytes_read_ = 0;
};

std::shared_ptr<const SourceModel> model_of_one(std::vector<uint64_t> strides) {
  auto model = std::make_shared<SourceModel>();
  TensorInfo& tensor = model->tensors.emplace_back();
  tensor.name = "model.layers.0.mlp.up_proj.weight";
  tensor.dtype = DType::kBF16;
  tensor.shape = {kSide, kSide};
  tensor.data.size = kSide * kSide * 2;
  tensor.strides = std::move(strides);
  return model;
}

std::vector<float> residual_of(const CountedMemory& source) {
  const TensorInfo& tensor = source.model().tensors[0];
  const Scheme& scheme = *find_scheme("int8");
  std::vector<float> out(kSide * kSide);
  EXPECT_THAT(compute_residual(source, tensor, scheme.encoding(source.model(), {}, tensor), nullptr, out), is_ok());
  return out;
}

// A transposed weight's rows are gathered from all over it: rows read a few at a time would read all of it each time.
TEST(Residual, ATransposedWeightIsNotReadManyTimes) {
  const std::vector<std::byte> rows = TensorData::normal(1).make(DType::kBF16, 0, kSide * kSide);
  std::vector<std::byte> columns(rows.size());
  for (uint64_t i = 0; i < kSide; ++i) {
    for (uint64_t j = 0; j < kSide; ++j) {
      std::copy_n(&rows[(i * kSide + j) * 2], 2, &columns[(j * kSide + i) * 2]);
    }
  }
  Stats stats;
  const CountedMemory straight(model_of_one({}), rows, stats);
  const CountedMemory transposed(model_of_one({1, kSide}), columns, stats);
  EXPECT_EQ(residual_of(transposed), residual_of(straight));
  EXPECT_EQ(straight.bytes_read(), rows.size());
  EXPECT_LE(transposed.bytes_read(), 2 * rows.size());
}

}  // namespace
}  // namespace qcache

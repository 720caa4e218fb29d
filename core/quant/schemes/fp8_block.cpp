#include <array>

#include "core/quant/decode.h"
#include "core/quant/encodings.h"
#include "core/quant/kernels.h"
#include "core/quant/loaders/fp8_block.h"
#include "core/quant/quantizer.h"
#include "core/quant/schemes.h"
#include "core/quant/tensor_selection.h"

namespace qcache {
namespace {

/// quant_method "fp8" as DeepSeek's models have it: `P.weight` F8_E4M3 and `P.weight_scale_inv`, one F32 for each
/// square of 128 by 128. A unit is 128 rows.
class Fp8BlockScheme final : public Scheme {
 public:
  [[nodiscard]] std::string_view name() const override { return "fp8-block"; }
  [[nodiscard]] std::span<const std::string_view> aliases() const override { return kAliases; }
  [[nodiscard]] uint32_t version() const override { return 1; }

  [[nodiscard]] std::optional<std::string> refusal(const SourceModel& model) const override {
    return refuse_quantized(model);
  }

  [[nodiscard]] Encoding encoding(const SourceModel& model, const ModelChoices& /*choices*/,
                                  const TensorInfo& tensor) const override {
    // Loaders take the size of the squares from the shapes, so there are no partial ones.
    if (!is_quantizable_linear(model, tensor) || tensor.shape[0] % kFp8BlockSide != 0 ||
        tensor.shape[1] % kFp8BlockSide != 0 || tensor.shape[1] > kMaximumColumns) {
      return copy_encoding(tensor);
    }
    Encoding out = row_encoding(tensor, kernels::encode_fp8_block, decode::fp8_block,
                                {stored_per_row(tensor, tensor.name, DType::kF8E4M3, tensor.shape),
                                 {.name = tensor.name + "_scale_inv",
                                  .dtype = DType::kF32,
                                  .shape = {tensor.shape[0] / kFp8BlockSide, tensor.shape[1] / kFp8BlockSide},
                                  .bytes_per_unit = tensor.shape[1] / kFp8BlockSide * sizeof(float)}});
    out.stored[0].bytes_per_unit *= kFp8BlockSide;
    out.source_bytes_per_unit *= kFp8BlockSide;
    return out;
  }

  [[nodiscard]] const LoaderFamily& loaders() const override {
    static const Fp8BlockLoaders kLoaders;
    return kLoaders;
  }

 private:
  /// Keeps a unit's memory bounded: 128 rows of these are 64 MiB in fp32.
  static constexpr uint64_t kMaximumColumns = uint64_t{128} << 10;
  static constexpr std::array<std::string_view, 2> kAliases = {"fp8_128x128", "deepseek-fp8"};
};

}  // namespace

const Scheme& scheme_fp8_block() {
  static const Fp8BlockScheme kScheme;
  return kScheme;
}

}  // namespace qcache

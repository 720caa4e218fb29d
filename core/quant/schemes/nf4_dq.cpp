#include <array>
#include <charconv>
#include <string>
#include <utility>

#include "core/base/checked.h"
#include "core/quant/bnb_4bit.h"
#include "core/quant/decode.h"
#include "core/quant/encodings.h"
#include "core/quant/kernels.h"
#include "core/quant/loaders/bitsandbytes.h"
#include "core/quant/quantizer.h"
#include "core/quant/schemes.h"
#include "core/quant/tensor_selection.h"

namespace qcache {
namespace {

StoredTensor per_unit(std::string name, DType dtype, Shape shape, uint64_t bytes) {
  return {.name = std::move(name), .dtype = dtype, .shape = std::move(shape), .bytes_per_unit = bytes};
}

/// The quant state names the mean absmax, whose number of digits nobody knows before; spaces make up for it.
StoredTensor quant_state(const TensorInfo& tensor) {
  constexpr uint64_t kLongestNumber = 24;
  std::string known =
      open_quant_state("nf4", tensor) + R"(, "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": )";
  const uint64_t size = known.size() + kLongestNumber + 1;
  return stored_once(tensor.name + ".quant_state.bitsandbytes__nf4", DType::kU8, {size},
                     [size, known = std::move(known)](const Survey& survey) {
                       std::array<char, kLongestNumber> number{};
                       // As Python writes it: the shortest decimal that is this very double.
                       auto* const end = std::to_chars(number.begin(), number.end(), double{survey.mean()}).ptr;
                       std::string text = known + std::string(number.begin(), end) + "}";
                       text.resize(size, ' ');
                       return text;
                     });
}

/// bitsandbytes NF4 with double quantization: the absmaxes less their mean over the tensor are 8-bit codes themselves,
/// with one F32 per 256 of them. A unit is those 256 blocks, wherever rows end.
class Nf4DqScheme final : public Scheme {
 public:
  [[nodiscard]] std::string_view name() const override { return "nf4-dq"; }
  [[nodiscard]] std::span<const std::string_view> aliases() const override { return kAliases; }
  [[nodiscard]] uint32_t version() const override { return 1; }

  [[nodiscard]] std::optional<std::string> refusal(const SourceModel& model) const override {
    return refuse_quantized_or_joined(model, name());
  }

  [[nodiscard]] Encoding encoding(const SourceModel& model, const ModelChoices& /*choices*/,
                                  const TensorInfo& tensor) const override {
    if (!fits_bnb_4bit(model, tensor)) {
      return copy_encoding(tensor);
    }
    const uint64_t elements = tensor.element_count();
    const uint64_t blocks = elements / kNf4BlockElements;
    Encoding out = copy_encoding(tensor);
    out.encode = kernels::encode_nf4_dq;
    out.decode = decode::nf4_dq;
    out.survey = kernels::survey_absmax_mean;
    out.quantized = true;
    out.row_elements = kNestedElements;
    out.source_bytes_per_unit = kNestedElements * item_bytes(tensor.dtype);
    out.stored = {
        per_unit(tensor.name, DType::kU8, {elements / 2, 1}, kNestedElements / 2),
        per_unit(tensor.name + ".absmax", DType::kU8, {blocks}, kNestedBlocks),
        per_unit(tensor.name + ".nested_absmax", DType::kF32, {ceil_div(blocks, kNestedBlocks)}, sizeof(float)),
        stored_constant(tensor.name + ".quant_map", DType::kF32, {kNf4Values.size()},
                        constant_bytes(DType::kF32, kNf4Values)),
        stored_constant(tensor.name + ".nested_quant_map", DType::kF32, {dynamic_map().size()},
                        constant_bytes(DType::kF32, dynamic_map())),
        quant_state(tensor)};
    return out;
  }

  [[nodiscard]] const LoaderFamily& loaders() const override {
    static const BitsAndBytesLoaders kLoaders({.quant_type = "nf4", .double_quant = true});
    return kLoaders;
  }

 private:
  static constexpr std::array<std::string_view, 1> kAliases = {"nf4-double"};
};

}  // namespace

const Scheme& scheme_nf4_dq() {
  static const Nf4DqScheme kScheme;
  return kScheme;
}

}  // namespace qcache

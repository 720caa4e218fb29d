#include <array>

#include "core/quant/bnb_4bit.h"
#include "core/quant/decode.h"
#include "core/quant/encodings.h"
#include "core/quant/folder_config.h"
#include "core/quant/kernels.h"
#include "core/quant/quantizer.h"
#include "core/quant/schemes.h"
#include "core/quant/tensor_selection.h"

namespace qcache {
namespace {

/// bitsandbytes NF4 with blocks of 64 and fp32 absmax: `P.weight` with two codes per byte, its absmax, the
/// code table, and the quant state.
class Nf4Scheme final : public Scheme {
 public:
  [[nodiscard]] std::string_view name() const override { return "nf4"; }
  [[nodiscard]] std::span<const std::string_view> aliases() const override { return kAliases; }
  [[nodiscard]] uint32_t version() const override { return 2; }

  [[nodiscard]] std::optional<std::string> refusal(const SourceModel& model) const override {
    return refuse_quantized(model);
  }

  [[nodiscard]] Encoding encoding(const SourceModel& model, const ModelChoices& /*choices*/,
                                  const TensorInfo& tensor) const override {
    if (!fits_bnb_4bit(model, tensor)) {
      return copy_encoding(tensor);
    }
    return row_encoding(tensor, kernels::encode_nf4, decode::nf4, bnb_4bit_tensors("nf4", kNf4Values, tensor));
  }

  [[nodiscard]] std::optional<std::string> quantization_config(const StoredModel& stored,
                                                               FolderReader reader) const override {
    return bitsandbytes_config(stored, reader, scale_dtype(dense_dtype(stored.model)), {.quant_type = "nf4"});
  }

 private:
  static constexpr std::array<std::string_view, 2> kAliases = {"bnb-4bit", "bnb-nf4"};
};

}  // namespace

const Scheme& scheme_nf4() {
  static const Nf4Scheme kScheme;
  return kScheme;
}

}  // namespace qcache

#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/quant/loaders/bitsandbytes.h"
#include "core/quant/scheme.h"

namespace qcache {

// What bitsandbytes' 4-bit schemes share.

/// Whether its modules can load `tensor`: a linear layer, no expert, and whole blocks in every row; its CPU kernels
/// fail on other shapes.
[[nodiscard]] bool fits_bnb_4bit(const SourceModel& model, const TensorInfo& tensor);

/// What it needs to know of a weight to restore it, as its own save writes it, without the closing brace.
[[nodiscard]] std::string open_quant_state(std::string_view quant_type, const TensorInfo& tensor);

/// nf4 and fp4: blocks of 64 with one F32 absmax each. `P.weight` with two codes per byte, its absmaxes, the code table
/// and the quant state.
class Bnb4BitScheme final : public Scheme {
 public:
  /// The views must live for ever.
  struct Traits {
    std::string_view name;  ///< also bitsandbytes'
    std::span<const std::string_view> aliases;
    uint32_t version = 1;
    std::span<const float> values;  ///< the code table
    EncodeFunction encode = nullptr;
    DecodeFunction decode = nullptr;
  };
  explicit Bnb4BitScheme(const Traits& traits) : traits_(traits), loaders_({.quant_type = traits.name}) {}

  [[nodiscard]] std::string_view name() const override { return traits_.name; }
  [[nodiscard]] std::span<const std::string_view> aliases() const override { return traits_.aliases; }
  [[nodiscard]] uint32_t version() const override { return traits_.version; }
  [[nodiscard]] std::optional<std::string> refusal(const SourceModel& model) const override;
  [[nodiscard]] Encoding encoding(const SourceModel& model, const ModelChoices& choices,
                                  const TensorInfo& tensor) const override;
  [[nodiscard]] const LoaderFamily& loaders() const override { return loaders_; }

 private:
  const Traits traits_;
  const BitsAndBytesLoaders loaders_;
};

}  // namespace qcache

#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/model/source_model.h"
#include "core/quant/encoding.h"
#include "core/quant/loader_family.h"

namespace qcache {

/// One `<dtype>` of the mount: the rules by which a model's tensors become stored bytes.
///
/// Schemes are stateless constants that live for the whole process; every function is pure and may be called
/// from any thread. To add one, write `core/quant/schemes/<name>.cpp` and add its line to the table in
/// schemes.h.
class Scheme {
 public:
  virtual ~Scheme() = default;

  /// Canonical name, as listed in the mount.
  [[nodiscard]] virtual std::string_view name() const = 0;
  /// Other names that resolve to this scheme.
  [[nodiscard]] virtual std::span<const std::string_view> aliases() const = 0;
  /// Raised whenever the bytes made from some input change; cached files of other versions are made again.
  [[nodiscard]] virtual uint32_t version() const = 0;
  /// Why this model cannot be served in this dtype (one sentence), or nothing where it can.
  [[nodiscard]] virtual std::optional<std::string> refusal(const SourceModel& model) const = 0;
  [[nodiscard]] virtual ModelChoices choose(const SourceModel& /*model*/) const { return {}; }
  /// How `tensor`, one of `model`'s, is stored; `choices` are choose(model). The stored tensors are in stream order.
  [[nodiscard]] virtual Encoding encoding(const SourceModel& model, const ModelChoices& choices,
                                          const TensorInfo& tensor) const = 0;

  /// The dtype that a model in this scheme computes in, and its folder's config.json names.
  [[nodiscard]] virtual DType dense_dtype(const SourceModel& model) const { return model.model_dtype(); }
  /// Who loads what the scheme stores.
  [[nodiscard]] virtual const LoaderFamily& loaders() const = 0;
};

/// All schemes, in the order they are listed.
[[nodiscard]] std::span<const Scheme* const> all_schemes();

/// The scheme with this canonical name or alias; case does not matter, "-" equals "_". Null where unknown.
[[nodiscard]] const Scheme* find_scheme(std::string_view name);

}  // namespace qcache

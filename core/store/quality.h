#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/base/digest.h"
#include "core/base/result.h"

namespace qcache {

/// How near the stored values of one quantized weight are to those of its source: sums over the elements that were
/// measured. Values that are not finite in the source are left out of all of them.
struct TensorQuality {
  std::string module;     ///< the weight's name without ".weight"
  double signal = 0;      ///< sum of w^2
  double noise = 0;       ///< sum of (w - w')^2
  uint64_t elements = 0;  ///< measured

  /// 10 log10(signal / noise). Nothing where there is no such number: what was measured is stored exactly, is all
  /// zeros, or is not finite.
  [[nodiscard]] std::optional<double> sqnr_db() const;

  friend bool operator==(const TensorQuality&, const TensorQuality&) = default;
};

/// The figures of the sealed file with these Record::contents(), in the byte order of the machine.
///
///   digest (32 bytes) | per tensor: signal, noise (8-byte floats), elements (8 bytes), length of the name (4 bytes),
///   name
[[nodiscard]] std::vector<uint8_t> encode_quality(const Sha256Digest& contents, std::span<const TensorQuality> tensors);
/// kCorrupt where the bytes are damaged. Nothing where they belong to other contents: a build that knows no figures
/// has replaced the file.
[[nodiscard]] Result<std::vector<TensorQuality>> decode_quality(const Sha256Digest& contents,
                                                                std::span<const uint8_t> bytes);

}  // namespace qcache

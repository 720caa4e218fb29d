#pragma once

#include <span>
#include <string>

#include "core/store/quality.h"

namespace qcache {

// What people and programs get to see of quality figures. SQNRs are in dB with two decimals, and null where there is no
// number: a weight that is stored exactly, or is zero, as far as it was measured.

/// The text of a folder's qcache.json with `sqnr_db`, the SQNR of each weight by its module, and
/// `sqnr_measured_elements`, of how many elements of all weights that is. REQUIRES: `description` is a JSON object.
[[nodiscard]] std::string with_quality(const std::string& description, std::span<const TensorQuality> tensors);

/// One line of JSON: `weights` and `measured_elements`, `median_db`, and `worst_db`, the SQNRs of up to five modules,
/// lowest first.
[[nodiscard]] std::string quality_summary(std::span<const TensorQuality> tensors);

}  // namespace qcache

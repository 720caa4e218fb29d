#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/model/source_model.h"

namespace qcache {

/// The least group that group-wise schemes use, and what divides every row they can quantize.
inline constexpr uint64_t kLeastGroupElements = 32;

/// One group size for the whole model, because loaders take a single configuration group: the largest of 128, 64 and 32
/// that divides the rows of every quantizable linear layer that 32 divides. 128 where there is none.
[[nodiscard]] uint64_t common_group_elements(const SourceModel& model);

/// Why a scheme with groups of `least` elements cannot serve this mixture of experts: some experts would be dense, with
/// which transformers fails to load the others.
[[nodiscard]] std::optional<std::string> refuse_dense_experts(const SourceModel& model, std::string_view scheme,
                                                              uint64_t least);

}  // namespace qcache

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/model/source_model.h"
#include "core/quant/encoding.h"

namespace qcache {

/// LoRA factors that make good a part of what quantizing a weight loses: with W the weight [out, in] and Q what its
/// stored form stands for, lora_B * lora_A is the best approximation of W - Q by a matrix of a given rank ("LoRC",
/// LoftQ with one step; docs/SCHEMES.md). Q does not depend on the rank.

/// Raised whenever the factors made from some weight change; cached files of other versions are made again.
inline constexpr uint32_t kFactorVersion = 1;

/// The factors of rank r are the first ones of a set of this many, so that ranks up to 64 agree in what they share,
/// and small ranks profit from the larger search.
[[nodiscard]] uint32_t factor_set_size(uint32_t rank);

/// What the random start of a weight's factors is drawn from: the same for the same tensor of any model.
[[nodiscard]] uint64_t factor_seed(std::string_view tensor_name);

/// Which stored tensors of `factors_of()` is which.
inline constexpr size_t kLoraA = 0;  ///< [rank, in]
inline constexpr size_t kLoraB = 1;  ///< [out, rank]

/// How the factors of `tensor`, which is stored as `weight`, are stored: `<prefix><module>.lora_A.weight` and
/// `.lora_B.weight`, fp32, in one unit that needs the whole weight. Nothing where the weight has none: it is not
/// quantized, no module's matrix, or empty.
[[nodiscard]] std::optional<Encoding> factors_of(const TensorInfo& tensor, const Encoding& weight, uint32_t rank,
                                                 std::string_view prefix);

/// The largest rank that makes a difference for a weight: its smaller side; 0 where it has no factors.
[[nodiscard]] uint64_t largest_rank(const TensorInfo& tensor, const Encoding& weight);

}  // namespace qcache

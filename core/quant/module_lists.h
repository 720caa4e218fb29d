#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/quant/scheme.h"

namespace qcache {

// The lists of modules that a configuration tells a loader to leave alone, as each loader reads them. Every list names
// all of StoredModel::dense_modules and, by the rules of its loader, none of its quantized ones. Pure; any thread.

/// For transformers' own quantizers (bitsandbytes, fp8). An entry there matches a module of that name, everything below
/// it, as a regular expression at the start of a name, and any name that ends with it. Full names do this right, also
/// where the model is loaded as part of a larger one; an entry that would match a quantized module is an anchored
/// expression instead. Experts that are dense altogether are one entry. Mixtral's modules are listed under the names
/// of transformers 4 and 5.
[[nodiscard]] std::vector<std::string> transformers_skip_list(const StoredModel& stored);

/// For compressed-tensors: exact names, or "re:" with an anchored expression where the name means something else there.
[[nodiscard]] std::vector<std::string> compressed_tensors_ignore_list(const StoredModel& stored);

/// For bitsandbytes in diffusers, which compares an entry with a module's name, with its last part, and with everything
/// above it. Nothing where these rules cannot tell the dense modules from the quantized ones.
[[nodiscard]] std::optional<std::vector<std::string>> diffusers_skip_list(const StoredModel& stored);

/// For quanto in diffusers, which compares an entry with the last part of a module's name only. Nothing as above.
[[nodiscard]] std::optional<std::vector<std::string>> diffusers_quanto_skip_list(const StoredModel& stored);

/// The output heads that share the embedding's weight, and so have no tensor of their own, by the names that
/// transformers' models give them. Loaders find such a module in the model and expect quantized tensors unless it is
/// listed as dense; a name that the model does not have is harmless. Left out are names that would also match a
/// quantized module.
[[nodiscard]] std::vector<std::string> absent_output_heads(const SourceModel& model,
                                                           std::span<const std::string> quantized_modules);

}  // namespace qcache

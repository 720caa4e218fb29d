#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/result.h"
#include "core/layout/layout_plan.h"
#include "core/model/source_model.h"
#include "core/quant/scheme.h"

namespace qcache {

/// Largest size of a file, and so of anything in it: offsets must fit the signed off_t.
inline constexpr uint64_t kMaxFileBytes = (uint64_t{1} << 63) - 1;

/// The groups of every container, one per source tensor in the model's order, with encoding and tiles set and
/// offsets and trailers still empty: those are the container's.
///
/// What holds for the result, so that containers need not check it: stored names are unique, every stored
/// tensor's size is at most kMaxFileBytes, constants are as long as their shape says, and whatever is not
/// constant is made by some tile. Fails with kUnsupported where the scheme refuses the model or the tiles
/// cannot be numbered, kInvalidModel where a stored name occurs twice or a shape is too large, and kInternal
/// where an encoding contradicts itself.
Result<std::vector<Group>> plan_groups(const SourceModel& model, const Scheme& scheme);

/// Tiles of all groups together.
[[nodiscard]] uint32_t count_tiles(std::span<const Group> groups);

/// The tile with this number, in O(log groups). REQUIRES: index < count_tiles(groups).
[[nodiscard]] Tile find_tile(std::span<const Group> groups, uint32_t index);

/// Whether the bytes are known from the plan. An empty tensor is not: it has none.
[[nodiscard]] inline bool is_constant(const StoredTensor& stored) {
  return !stored.constant.empty();
}

}  // namespace qcache

#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "core/layout/layout_plan.h"
#include "core/model/source_model.h"
#include "core/quant/scheme.h"

namespace qcache {

/// Largest size of a file, and so of anything in it: offsets must fit the signed off_t.
inline constexpr uint64_t kMaxFileBytes = (uint64_t{1} << 63) - 1;

/// Which of what can be stored of a model a file holds.
struct Contents {
  bool weights = true;
  uint32_t rank = 0;                 ///< of the LoRA factors; 0: none
  std::string_view factor_prefix{};  ///< of their names
};

/// The groups of every container, with encoding and tiles set and offsets and trailers still empty: those are the
/// container's. First the weights, one group per source tensor in the model's order, then the LoRA factors, one group
/// per quantized weight.
///
/// What holds for the result, so that containers need not check it: stored names are unique, every stored
/// tensor's size is at most kMaxFileBytes, constants are as long as their shape says, and whatever is not
/// constant is made by some tile. Fails with kUnsupported where the scheme refuses the model or the tiles cannot
/// be numbered, kNotFound where no weight has factors of that rank, kInvalidModel where a stored name occurs twice or a
/// shape is too large, and kInternal where an encoding contradicts itself.
Result<std::vector<Group>> plan_groups(const SourceModel& model, const Scheme& scheme, const Contents& contents = {});

/// The same groups in the same order, one at a time: for who needs no more of a model of any size than a number. What
/// holds for the result holds when this has returned without an error, and so only then may be relied on. An error of
/// `visit` ends it.
Status visit_groups(const SourceModel& model, const Scheme& scheme, const Contents& contents,
                    const std::function<Status(Group&&)>& visit);

/// Tiles of all groups together.
[[nodiscard]] uint32_t count_tiles(std::span<const Group> groups);

/// The tile with this number, in O(log groups). REQUIRES: index < count_tiles(groups).
[[nodiscard]] Tile find_tile(std::span<const Group> groups, uint32_t index);

/// Whether the bytes are known from the plan. An empty tensor is not: it has none.
[[nodiscard]] inline bool is_constant(const StoredTensor& stored) {
  return !stored.constant.empty();
}

}  // namespace qcache

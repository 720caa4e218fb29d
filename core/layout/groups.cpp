#include "core/layout/groups.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "core/base/checked.h"
#include "core/quant/factors.h"

namespace qcache {
namespace {

/// Bytes of `stored`, or nothing where they exceed kMaxFileBytes. An extent of 0 makes any shape empty, so it
/// is looked for first: the others may multiply to anything.
std::optional<uint64_t> bounded_bytes(const StoredTensor& stored) {
  if (std::find(stored.shape.begin(), stored.shape.end(), 0U) != stored.shape.end()) {
    return 0;
  }
  std::optional<uint64_t> bytes = item_bytes(stored.dtype);
  for (const uint64_t extent : stored.shape) {
    bytes = checked_mul(*bytes, extent);
    if (!bytes || *bytes > kMaxFileBytes) {
      return std::nullopt;
    }
  }
  return bytes;
}

/// What one unit makes over all stored tensors, 0 where nothing has to be made.
Result<uint64_t> check_encoding(const Encoding& encoding, const Scheme& scheme, const TensorInfo& tensor) {
  const auto contradiction = [&](std::string_view what) {
    return fail(ErrorKind::kInternal, fmt::format("scheme '{}' {} for tensor '{}'; this is a bug in qcache",
                                                  scheme.name(), what, tensor.name));
  };
  uint64_t unit_bytes = 0;
  for (const StoredTensor& stored : encoding.stored) {
    const std::optional<uint64_t> bytes = bounded_bytes(stored);
    if (!bytes) {
      return fail(ErrorKind::kInvalidModel,
                  fmt::format("tensor '{}' is too large: '{}', stored for it in dtype '{}', would exceed 2^63 bytes",
                              tensor.name, stored.name, scheme.name()));
    }
    if (is_constant(stored)) {
      if (stored.constant.size() != *bytes) {
        return contradiction("stores a constant whose length differs from its shape");
      }
      continue;
    }
    if (*bytes == 0) {
      continue;
    }
    const uint64_t units = encoding.source_bytes_per_unit > 0 ? encoding.unit_count() : 0;
    std::optional<uint64_t> per_unit = *bytes;  // made once
    if (stored.order != UnitOrder::kOnce) {
      per_unit = checked_mul(stored.bytes_per_unit, stored.order == UnitOrder::kFolded ? 2 : 1);
    }
    const std::optional<uint64_t> made = per_unit ? checked_mul(units, *per_unit) : std::nullopt;
    if (!made || *made < *bytes) {
      return contradiction("stores bytes that no unit makes");
    }
    if (stored.order == UnitOrder::kOnce && (stored.once == nullptr || encoding.survey == nullptr)) {
      return contradiction("stores bytes from a survey that it does not make");
    }
    const std::optional<uint64_t> sum = checked_add(unit_bytes, *per_unit);
    if (!sum) {
      return contradiction("has units of more than 2^64 bytes");
    }
    unit_bytes = *sum;
  }
  return unit_bytes;
}

/// Whether stored names are unique. Holds eight bytes of each; the names that these cannot tell apart are looked at in
/// a second round.
class StoredNames {
 public:
  void add(const Encoding& encoding) {
    for (const StoredTensor& stored : encoding.stored) {
      hashes_.push_back(hash_of(stored.name));
    }
  }

  /// The hashes that are there more than once.
  [[nodiscard]] std::vector<size_t> repeated() && {
    std::sort(hashes_.begin(), hashes_.end());
    std::vector<size_t> out;
    for (auto at = std::adjacent_find(hashes_.begin(), hashes_.end()); at != hashes_.end();
         at = std::adjacent_find(at, hashes_.end())) {
      out.push_back(*at);
      at = std::upper_bound(at, hashes_.end(), *at);
    }
    return out;
  }

  static size_t hash_of(std::string_view name) { return std::hash<std::string_view>()(name); }

 private:
  std::vector<size_t> hashes_;
};

constexpr uint64_t kMaxTiles = std::numeric_limits<uint32_t>::max();

/// Sets the tiles of the group, the first of which is `first`.
Status number_tiles(Group& group, uint64_t first, const SourceModel& model, const Scheme& scheme) {
  const TensorInfo& tensor = model.tensors[group.tensor];
  QCACHE_TRY_ASSIGN(const uint64_t unit_bytes, check_encoding(group.encoding, scheme, tensor));
  uint64_t end = first;
  if (unit_bytes > 0) {
    group.units_per_tile = std::max<uint64_t>(
        1, std::min(kTileOutputBytes / unit_bytes, kTileSourceBytes / group.encoding.source_bytes_of_unit()));
    const uint64_t needed = ceil_div(group.encoding.unit_count(), group.units_per_tile);
    if (needed > kMaxTiles - first) {
      return fail(ErrorKind::kUnsupported,
                  fmt::format("model '{}' is too large for dtype '{}': tensor '{}' brings it beyond {} tiles",
                              model.name, scheme.name(), tensor.name, kMaxTiles));
    }
    end += needed;
  }
  group.tiles = {static_cast<uint32_t>(first), static_cast<uint32_t>(end)};
  return {};
}

Error no_such_rank(const SourceModel& model, const Scheme& scheme, uint32_t rank, uint64_t largest) {
  return Error{ErrorKind::kNotFound, 0,
               largest == 0
                   ? fmt::format("model '{}' in dtype '{}' has only rank 0: nothing in it is quantized, so that LoRA "
                                 "factors have nothing to make good",
                                 model.name, scheme.name())
                   : fmt::format("model '{}' in dtype '{}' has no rank {}: the smaller side of its largest quantized "
                                 "weight is {}",
                                 model.name, scheme.name(), rank, largest)};
}

/// Calls `visit` with every group, in order and without tiles.
Status encode_all(const SourceModel& model, const Scheme& scheme, const Contents& contents,
                  const std::function<Status(Group&&)>& visit) {
  const ModelChoices choices = scheme.choose(model);
  if (contents.rank > 0) {
    uint64_t largest = 0;
    for (const TensorInfo& tensor : model.tensors) {
      largest = std::max(largest, largest_rank(tensor, scheme.encoding(model, choices, tensor)));
    }
    if (contents.rank > largest) {
      return fail(no_such_rank(model, scheme, contents.rank, largest));
    }
  }
  if (contents.weights) {
    for (uint32_t index = 0; index < model.tensors.size(); ++index) {
      Group group;
      group.tensor = index;
      group.encoding = scheme.encoding(model, choices, model.tensors[index]);
      QCACHE_TRY(visit(std::move(group)));
    }
  }
  for (uint32_t index = 0; contents.rank > 0 && index < model.tensors.size(); ++index) {
    const TensorInfo& tensor = model.tensors[index];
    if (auto encoding =
            factors_of(tensor, scheme.encoding(model, choices, tensor), contents.rank, contents.factor_prefix)) {
      Group group;
      group.tensor = index;
      group.encoding = std::move(*encoding);
      QCACHE_TRY(visit(std::move(group)));
    }
  }
  return {};
}

/// Looks for a name that is there twice among those with these hashes (sorted).
Status check_names(const std::vector<size_t>& repeated, const SourceModel& model, const Scheme& scheme,
                   const Contents& contents) {
  if (repeated.empty()) {
    return {};
  }
  std::map<std::string, uint32_t, std::less<>> owners;
  return encode_all(model, scheme, contents, [&](Group&& group) -> Status {
    for (StoredTensor& stored : group.encoding.stored) {
      if (!std::binary_search(repeated.begin(), repeated.end(), StoredNames::hash_of(stored.name))) {
        continue;
      }
      const auto [owner, is_new] = owners.try_emplace(stored.name, group.tensor);
      if (!is_new) {
        return fail(ErrorKind::kInvalidModel,
                    fmt::format("model '{}' cannot be stored in dtype '{}': the name '{}' would be stored twice, for "
                                "its tensors '{}' and '{}'; rename one of them",
                                model.name, scheme.name(), stored.name, model.tensors[owner->second].name,
                                model.tensors[group.tensor].name));
      }
    }
    return {};
  });
}

}  // namespace

Groups::Groups(std::shared_ptr<const SourceModel> model, const Scheme& scheme, Contents contents)
    : model_(std::move(model)), scheme_(&scheme), contents_(std::move(contents)), choices_(scheme.choose(*model_)) {}

Result<Groups> Groups::plan(std::shared_ptr<const SourceModel> model, const Scheme& scheme, Contents contents,
                            const Visit& visit) {
  if (const std::optional<std::string> refusal = scheme.refusal(*model)) {
    return fail(ErrorKind::kUnsupported, *refusal);
  }
  if (model->tensors.size() > kMaxTiles) {
    return fail(ErrorKind::kUnsupported, fmt::format("model '{}' has more than {} tensors", model->name, kMaxTiles));
  }
  Groups groups(std::move(model), scheme, std::move(contents));
  groups.tile_ends_.reserve(groups.contents_.weights ? groups.model_->tensors.size() : 0);
  StoredNames names;
  const auto number = [&](Group&& group) -> Status {
    QCACHE_TRY(number_tiles(group, groups.tile_count(), *groups.model_, scheme));
    groups.tile_ends_.push_back(group.tiles.end);
    if (group.encoding.factored != nullptr) {
      groups.factored_.push_back(group.tensor);
    }
    names.add(group.encoding);
    return visit(group);
  };
  QCACHE_TRY(encode_all(*groups.model_, scheme, groups.contents_, number));
  QCACHE_TRY(check_names(std::move(names).repeated(), *groups.model_, scheme, groups.contents_));
  groups.factored_.shrink_to_fit();
  groups.tile_ends_.shrink_to_fit();
  return groups;
}

uint32_t Groups::group_of(uint32_t tile) const {
  // A group without tiles ends where the one before does: the first end beyond the tile belongs to its group.
  return static_cast<uint32_t>(std::ranges::upper_bound(tile_ends_, tile) - tile_ends_.begin());
}

Group Groups::make(uint32_t index) const {
  const size_t weights = contents_.weights ? model_->tensors.size() : 0;
  Group group;
  group.tensor = index < weights ? index : factored_[index - weights];
  const TensorInfo& tensor = model_->tensors[group.tensor];
  group.encoding = scheme_->encoding(*model_, choices_, tensor);
  if (index >= weights) {
    // There are some: plan() has seen them.
    group.encoding = factors_of(tensor, group.encoding, contents_.rank, contents_.factor_prefix).value();
  }
  // As in plan(), where it did not fail.
  (void)number_tiles(group, index == 0 ? 0 : tile_ends_[index - 1], *model_, *scheme_);
  return group;
}

}  // namespace qcache

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/base/result.h"
#include "core/layout/layout_plan.h"
#include "core/model/views.h"
#include "core/quant/scheme.h"

namespace qcache {

/// Which of a model's ranks have a file of a container of their own.
enum class ContainerRanks : uint8_t {
  kEach,       ///< every rank, 0 included
  kShared,     ///< none: one file, which is rank 0's, stands in the folder of every rank
  kAboveZero,  ///< every rank but 0
};

/// One kind of cached file: where it is shown, what it is called in the cache directory, and how it is planned.
///
/// Containers are constants that live for the whole process; every function is pure and may be called from any thread.
/// To add one, write `core/layout/containers/<name>.cpp` and add its line to the table in containers.h.
struct Container {
  using Plan = Result<std::shared_ptr<const LayoutPlan>> (*)(const std::shared_ptr<const SourceModel>& model,
                                                             const Scheme& scheme, uint32_t rank);
  using Refusal = std::optional<std::string> (*)(const SourceModel& model, const Scheme& scheme);

  /// Where a file of it stands below `<model>/<dtype>/`, with "{rank}" for the rank. With a "/" it stands in the folder
  /// of its rank, and is there where that folder is.
  std::string_view path;
  /// The same where the model is the component of a diffusers pipeline, for which "{component}" stands.
  std::string_view pipeline_path;
  /// What the names of such files in the cache directory end with; no two containers have the same. Part of the recipe.
  std::string_view suffix;
  ContainerRanks ranks = ContainerRanks::kEach;
  bool holds_weights = true;  ///< else what is added to them
  /// Of the model as `view` sees it. Fails as Groups::plan() does.
  Plan plan = nullptr;
  const SourceView& (*view)() = view_as_is;
  /// Why a model that the scheme serves has no such file (one sentence). Null: it always has.
  Refusal refusal = nullptr;

  [[nodiscard]] bool stands_in_folder() const { return path.find('/') != std::string_view::npos; }
  [[nodiscard]] bool has_rank(uint32_t rank) const { return ranks != ContainerRanks::kAboveZero || rank > 0; }
  /// The plan of a file, of a model as it is.
  [[nodiscard]] Result<std::shared_ptr<const LayoutPlan>> plan_of(const std::shared_ptr<const SourceModel>& model,
                                                                  const Scheme& scheme, uint32_t rank) const {
    return plan(view().look(model), scheme, rank);
  }
  /// The rank of the file that is shown for `shown`.
  [[nodiscard]] uint32_t rank_behind(uint32_t shown) const { return ranks == ContainerRanks::kShared ? 0 : shown; }
  /// Whether the folder of `rank` shows it and no other rank's folder does.
  [[nodiscard]] bool is_own_of_folder(uint32_t rank) const {
    return stands_in_folder() && has_rank(rank) && rank_behind(rank) == rank;
  }
  /// `16.bin`, `0/model.safetensors`. `component` is that of a pipeline, else empty.
  [[nodiscard]] std::string path_of(uint32_t rank, std::string_view component) const;
  /// Whether a model that the scheme serves has a file of it for `rank`, as far as is known without planning one.
  /// `has_folder`: whether it has a folder of that rank.
  [[nodiscard]] bool is_offered(uint32_t rank, bool has_folder, const SourceModel& model, const Scheme& scheme) const {
    return has_rank(rank) && (stands_in_folder() ? has_folder : refusal == nullptr || !refusal(model, scheme));
  }
};

/// All containers, in the order of the table.
[[nodiscard]] std::span<const Container* const> all_containers();

/// What Container::path_of() names, whether or not it is of a pipeline. `rank` is the one that the path tells.
struct ContainerFile {
  const Container* container = nullptr;
  uint32_t rank = 0;
};
[[nodiscard]] std::optional<ContainerFile> parse_container_path(std::string_view path);

/// A decimal rank without leading zeros, below 2^31. None for anything else.
[[nodiscard]] std::optional<uint32_t> parse_rank(std::string_view digits);

}  // namespace qcache

#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "core/model/source_model.h"

namespace qcache {

/// How the tensors of a checkpoint are looked at: under which names, in which pieces, in which order of their elements.
///
/// Plain data in and out: no file is touched, so what a view says is tested without one. A slice is another range of
/// the file, a permutation other strides (TensorInfo). Views are constants that live for the whole process; every
/// function is pure and may be called from any thread. To add one, write `core/model/views/<name>.cpp` and its line in
/// views.h.
struct SourceView {
  using Look = std::shared_ptr<const SourceModel> (*)(const std::shared_ptr<const SourceModel>& model);

  std::string_view name;
  uint32_t version = 1;  ///< raised whenever it makes other tensors of the same ones; part of the recipe
  /// The model as it is seen; the same object where it is seen as it is. The result keeps what SourceModel promises,
  /// but for the order of its tensors.
  Look look = nullptr;
};

/// All views, in the order of the table.
[[nodiscard]] std::span<const SourceView* const> all_views();

}  // namespace qcache

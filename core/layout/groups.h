#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "core/model/source_model.h"
#include "core/quant/scheme.h"

namespace qcache {

/// Largest size of a file, and so of anything in it: offsets must fit the signed off_t.
inline constexpr uint64_t kMaxFileBytes = (uint64_t{1} << 63) - 1;

/// Largest number of bytes a tile makes (unless one unit makes more), and reads from its source.
inline constexpr uint64_t kTileOutputBytes = uint64_t{2} << 20;
inline constexpr uint64_t kTileSourceBytes = uint64_t{8} << 20;

/// Which of what can be stored of a model a file holds.
struct Contents {
  bool weights = true;
  uint32_t rank = 0;               ///< of the LoRA factors; 0: none
  std::string factor_prefix = {};  ///< of their names
};

/// Consecutive tiles [first, end).
struct TileSpan {
  uint32_t first = 0;
  uint32_t end = 0;
  friend bool operator==(const TileSpan&, const TileSpan&) = default;
};

/// One source tensor and where what is stored for it lies.
struct Group {
  uint32_t tensor = 0;  ///< index into the tensors of LayoutPlan::source()
  Encoding encoding;
  std::vector<uint64_t> data_offsets;   ///< in the file, per stored tensor
  std::vector<uint32_t> trailer_bytes;  ///< per stored tensor; 0 where none depends on tensor bytes
  TileSpan tiles;                       ///< this group's; empty where nothing is produced
  uint64_t units_per_tile = 1;
};

/// Whether the bytes are known from the plan. An empty tensor is not: it has none.
[[nodiscard]] inline bool is_constant(const StoredTensor& stored) {
  return !stored.constant.empty();
}

/// The groups of every container: first the weights, one group per source tensor in the model's order, then the LoRA
/// factors, one group per quantized weight. None of them is held: each follows from its tensor, and is made again when
/// it is asked for. What is held are four bytes a group.
///
/// What always holds, so that containers need not check it: stored names are unique, every stored tensor's size is at
/// most kMaxFileBytes, constants are as long as their shape says, whatever is not constant is made by some tile, and a
/// group that is made again is the same. Immutable; any thread.
class Groups {
 public:
  using Visit = std::function<Status(const Group&)>;

  /// Numbers the tiles, and shows every group once, in order, to `visit`, whose errors end it: what holds for the
  /// groups may be relied on when this has returned without an error.
  ///
  /// Fails with kUnsupported where the scheme refuses the model or the tiles cannot be numbered, kNotFound where no
  /// weight has factors of that rank, kInvalidModel where a stored name occurs twice or a shape is too large, and
  /// kInternal where an encoding contradicts itself. `scheme` must live as long as the result.
  static Result<Groups> plan(std::shared_ptr<const SourceModel> model, const Scheme& scheme, Contents contents,
                             const Visit& visit);

  [[nodiscard]] const SourceModel& model() const { return *model_; }
  [[nodiscard]] uint32_t count() const { return static_cast<uint32_t>(tile_ends_.size()); }
  [[nodiscard]] uint32_t tile_count() const { return tile_ends_.empty() ? 0 : tile_ends_.back(); }
  /// The group that this tile belongs to, in O(log groups). REQUIRES: tile < tile_count().
  [[nodiscard]] uint32_t group_of(uint32_t tile) const;
  /// The group of this number, without the container's part: offsets and trailers. REQUIRES: index < count().
  [[nodiscard]] Group make(uint32_t index) const;

 private:
  Groups(std::shared_ptr<const SourceModel> model, const Scheme& scheme, Contents contents);

  std::shared_ptr<const SourceModel> model_;
  const Scheme* scheme_;
  Contents contents_;
  ModelChoices choices_;
  std::vector<uint32_t> factored_;   // the tensors that have factors in the file
  std::vector<uint32_t> tile_ends_;  // by group; they never fall
};

}  // namespace qcache

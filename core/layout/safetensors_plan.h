#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/layout/layout_plan.h"

namespace qcache {

/// One stored tensor's place in the file.
struct SafetensorsRecord {
  ByteRange range;  ///< not empty
  uint32_t group = 0;
  uint32_t stored = 0;
};

/// A planned safetensors file: the header, then tensors without gaps. Nothing in it depends on tensor bytes but those
/// bytes themselves. Immutable. plan_safetensors builds it.
class SafetensorsPlan final : public LayoutPlan {
 public:
  struct Parts {
    std::vector<Group> groups;
    std::vector<SafetensorsRecord> records;  ///< by offset
    std::string header;                      ///< with its length in front and padding behind
    uint64_t size_bytes = 0;
  };
  explicit SafetensorsPlan(Parts parts) : parts_(std::move(parts)) {}

  [[nodiscard]] uint64_t size_bytes() const override { return parts_.size_bytes; }
  [[nodiscard]] std::span<const Group> groups() const override { return parts_.groups; }
  [[nodiscard]] uint32_t tile_count() const override;
  [[nodiscard]] Tile tile(uint32_t index) const override;
  [[nodiscard]] std::vector<Piece> locate(ByteRange range) const override;
  void render_static(ByteRange range, std::span<std::byte> out) const override;
  [[nodiscard]] std::vector<std::byte> trailer(uint32_t /*group*/, uint32_t /*stored*/,
                                               uint32_t /*crc*/) const override {
    return {};
  }

 private:
  /// Calls `visit(record, part of its range that was asked for)` in file order.
  template <typename Visit>
  void for_each_record(ByteRange range, const Visit& visit) const;

  Parts parts_;
};

}  // namespace qcache

#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/layout/layout_plan.h"
#include "core/layout/part_index.h"

namespace qcache {

/// One stored tensor's place in the file.
struct SafetensorsRecord {
  ByteRange range;
  uint32_t group = 0;
  uint16_t stored = 0;  ///< index into the group's encoding
  bool constant = false;
  uint32_t entry_bytes = 0;  ///< of its entry in the header, without the offsets
};

/// What an entry of the header says before its offsets, and these: positions after the header.
[[nodiscard]] std::string entry_text(const StoredTensor& stored);
[[nodiscard]] std::string offsets_text(uint64_t begin, uint64_t end);

/// A planned safetensors file: the header, then tensors without gaps. Nothing in it depends on tensor bytes but those
/// bytes themselves. Holds 40 bytes per stored tensor; the header is made when asked for. Immutable. plan_safetensors
/// builds it.
class SafetensorsPlan final : public LayoutPlan {
 public:
  struct Parts {
    std::vector<SafetensorsRecord> records;  ///< by offset
    std::vector<uint64_t> data_offsets;      ///< by group and stored tensor
    std::vector<uint32_t> first_stored;      ///< by group: where its offsets begin
    PartIndex header;                        ///< begin, records, end
    std::string header_begin;                ///< with the length in front
    std::string header_end;                  ///< with the padding behind
    uint64_t size_bytes = 0;
  };
  SafetensorsPlan(Groups groups, Parts parts) : LayoutPlan(std::move(groups)), parts_(std::move(parts)) {}

  [[nodiscard]] uint64_t size_bytes() const override { return parts_.size_bytes; }
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
  void append_header_part(size_t part, std::string& text) const;
  void place(uint32_t index, Group& group) const override;

  Parts parts_;
};

}  // namespace qcache

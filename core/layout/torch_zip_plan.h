#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/layout/layout_plan.h"
#include "core/layout/part_index.h"
#include "core/layout/zip_format.h"

namespace qcache {

/// The CRC-32 of every byte string that ends with its own CRC-32 (of all bytes before), little-endian.
inline constexpr uint32_t kTrailedCrc = 0x2144DF1C;

/// One tensor's zip member: local header, tensor bytes, trailer.
struct TorchRecord {
  uint64_t header_offset = 0;
  uint64_t data_offset = 0;
  uint64_t tensor_bytes = 0;
  uint32_t group = 0;
  uint16_t stored = 0;        ///< index into the group's encoding
  uint8_t trailer_bytes = 0;  ///< of constants too, unlike Group::trailer_bytes
  bool constant = false;

  /// Bytes of the zip member.
  [[nodiscard]] uint64_t size() const { return tensor_bytes + trailer_bytes; }
  [[nodiscard]] uint64_t end() const { return data_offset + size(); }
};

/// Bytes after a tensor of `tensor_bytes` bytes (whole items): zeros up to whole items again, then the CRC.
/// An empty tensor has none.
[[nodiscard]] uint8_t trailer_bytes(uint64_t tensor_bytes, DType dtype);

/// The zip member of record `index`; `name` is storage for its name.
[[nodiscard]] ZipMember zip_member(const TorchRecord& record, uint64_t index, std::string& name);

/// Adds the name of a quantized tensor to the record `archive/qcache.json`.
void append_quantized_name(std::string& text, const std::string& tensor, bool is_first);
inline constexpr std::string_view kDescriptionEnd = "]}";

/// A planned torch checkpoint: pickle, small records, one record per stored tensor, directory. Holds 32 bytes per
/// stored tensor; everything else is made when asked for. Immutable. plan_torch_zip builds it.
class TorchZipPlan final : public LayoutPlan {
 public:
  struct Parts {
    std::vector<TorchRecord> records;     ///< by offset; record i is `data/<i>`
    std::vector<uint32_t> first_records;  ///< by group, whose records follow one another
    std::string before_pickle;            ///< from byte 0: the header of the pickle's record
    PartIndex pickle;                     ///< begin, records, end
    std::string before_description;       ///< the other small records, and the header of `archive/qcache.json`
    PartIndex description;                ///< begin, groups, end; empty where there is none
    std::string description_begin;
    uint32_t first_quantized = 0;  ///< group
    PartIndex directory;           ///< entries of the small records, of the records, and the end of the file
    std::string directory_begin;
    std::string directory_end;
    uint64_t directory_offset = 0;
    uint32_t data_alignment = 1;
  };
  TorchZipPlan(Groups groups, Parts parts);

  [[nodiscard]] uint64_t size_bytes() const override;
  [[nodiscard]] std::vector<Piece> locate(ByteRange range) const override;
  void render_static(ByteRange range, std::span<std::byte> out) const override;
  [[nodiscard]] std::vector<std::byte> trailer(uint32_t group, uint32_t stored, uint32_t crc) const override;

 private:
  struct Segment;
  /// Calls `visit(segment)` for each segment that meets `range`, in file order.
  template <typename Visit>
  void walk(ByteRange range, Visit visit) const;
  /// Writes the segment's bytes from `skip` on, where it is no stored tensor's and no trailer of one.
  void render(const Segment& segment, uint64_t skip, std::span<std::byte> out) const;
  void render_constant(const Segment& segment, uint64_t skip, std::span<std::byte> out) const;
  void append_pickle_part(size_t part, std::string& text) const;
  void append_description_part(size_t part, std::string& text) const;
  void append_directory_part(size_t part, std::string& text) const;
  void place(uint32_t index, Group& group) const override;

  Parts parts_;
};

}  // namespace qcache

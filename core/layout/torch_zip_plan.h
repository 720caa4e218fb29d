#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/layout/layout_plan.h"
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
  uint32_t stored = 0;
  uint32_t trailer_bytes = 0;  ///< of constants too, unlike Group::trailer_bytes
  uint32_t constant_crc = 0;   ///< of a constant tensor's bytes

  /// Bytes of the zip member.
  [[nodiscard]] uint64_t size() const { return tensor_bytes + trailer_bytes; }
  [[nodiscard]] uint64_t end() const { return data_offset + size(); }
};

/// Bytes after a tensor of `tensor_bytes` bytes (whole items): zeros up to whole items again, then the CRC.
/// An empty tensor has none.
[[nodiscard]] uint32_t trailer_bytes(uint64_t tensor_bytes, DType dtype);

/// The zip member of record `index`; `name` is storage for its name.
[[nodiscard]] ZipMember zip_member(const TorchRecord& record, uint64_t index, std::string& name);

/// A planned torch checkpoint. The small records and the directory are held as they will be written, about
/// 300 bytes per tensor; headers with their page of padding, gaps and trailers are made when asked for.
/// Immutable. plan_torch_zip builds it.
class TorchZipPlan final : public LayoutPlan {
 public:
  struct Parts {
    std::vector<Group> groups;
    std::vector<TorchRecord> records;  ///< by offset; record i is `data/<i>`
    std::string small_records;         ///< with their headers, from byte 0
    std::string directory;             ///< to the end of the file
    uint64_t directory_offset = 0;
    uint32_t data_alignment = 1;
  };
  explicit TorchZipPlan(Parts parts);

  [[nodiscard]] uint64_t size_bytes() const override;
  [[nodiscard]] std::span<const Group> groups() const override { return parts_.groups; }
  [[nodiscard]] uint32_t tile_count() const override;
  [[nodiscard]] Tile tile(uint32_t index) const override;
  [[nodiscard]] std::vector<Piece> locate(ByteRange range) const override;
  void render_static(ByteRange range, std::span<std::byte> out) const override;
  [[nodiscard]] std::vector<std::byte> trailer(uint32_t group, uint32_t stored, uint32_t crc) const override;

 private:
  struct Segment;
  /// Calls `visit(segment)` for each segment that meets `range`, in file order.
  template <typename Visit>
  void walk(ByteRange range, Visit visit) const;
  [[nodiscard]] const StoredTensor& stored_tensor(const TorchRecord& record) const;

  Parts parts_;
};

}  // namespace qcache

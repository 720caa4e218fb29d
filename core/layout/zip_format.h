#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace qcache {

/// A stored (uncompressed) member of a zip file.
struct ZipMember {
  std::string_view name;  ///< shorter than 64 KiB
  uint32_t crc = 0;       ///< of its bytes
  uint64_t size = 0;
  uint64_t header_offset = 0;
};

/// Largest alignment that local_header can pad to: the padding's length is 16 bits.
inline constexpr uint32_t kMaxZipAlignment = uint32_t{1} << 15;

/// A local header: `fixed`, then `padding` times the letter Z. Kept apart so that a page of padding need not
/// be in memory.
struct ZipLocalHeader {
  std::string fixed;
  uint32_t padding = 0;
  [[nodiscard]] uint64_t size() const { return fixed.size() + padding; }
};

/// The local header after which the member's bytes start at a multiple of `data_alignment` (1 to
/// kMaxZipAlignment) in the file. The padding is an extra field "FB", as torch itself writes.
[[nodiscard]] ZipLocalHeader local_header(const ZipMember& member, uint32_t data_alignment);

/// Bytes of that header, without making it.
[[nodiscard]] uint64_t local_header_bytes(const ZipMember& member, uint32_t data_alignment);

/// Adds the member's entry of the central directory to `out`.
void append_central_entry(std::string& out, const ZipMember& member);

/// Adds what ends a zip file whose central directory has `entries` entries in `directory_bytes` bytes at
/// `directory_offset`. The zip64 records are written only where a number does not fit the short one: some
/// readers refuse files that have them without need.
void append_directory_end(std::string& out, uint64_t entries, uint64_t directory_offset, uint64_t directory_bytes);

}  // namespace qcache

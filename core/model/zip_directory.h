#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/byte_range.h"
#include "core/base/result.h"
#include "core/model/byte_source.h"

namespace qcache {

/// The members of a zip archive made by a stranger, from its central directory.
///
/// Always holds: names are unique and of 1 to 511 bytes; every member is stored as it is (no compression, no
/// encryption); each member's header and bytes lie in the archive, before the directory, and overlap no other's.
/// Immutable; may be shared between threads.
class ZipDirectory {
 public:
  struct Entry {
    std::string_view name;  ///< valid as long as the directory
    uint64_t header_offset = 0;
    uint64_t size = 0;
    uint64_t limit = 0;  ///< where the next header, or the directory, begins
  };

  /// Costs two to four reads: the end records and the directory. Fails with kInvalidModel where the archive breaks one
  /// of the rules above, is incomplete, or has a directory beyond 64 MiB.
  static Result<ZipDirectory> read(ByteSource& source);

  /// In the order of the directory.
  [[nodiscard]] const std::vector<Entry>& entries() const { return entries_; }
  /// Null where there is none of this name.
  [[nodiscard]] const Entry* find(std::string_view name) const;

  ZipDirectory(ZipDirectory&&) noexcept = default;
  ZipDirectory& operator=(ZipDirectory&&) noexcept = default;
  ZipDirectory(const ZipDirectory&) = delete;
  ZipDirectory& operator=(const ZipDirectory&) = delete;
  ~ZipDirectory() = default;

 private:
  ZipDirectory() = default;
  Status parse(uint64_t count, uint64_t directory_offset);
  Status order(uint64_t directory_offset);

  std::vector<char> bytes_;  // of the directory; a vector keeps its address when moved, which a string may not
  std::vector<Entry> entries_;
  std::vector<uint32_t> by_name_;
};

/// Where the bytes of a member lie: known only from its local header, whose length the directory does not tell. One
/// read. Fails with kInvalidModel where the header contradicts the directory.
Result<ByteRange> locate_zip_member(ByteSource& source, const ZipDirectory::Entry& entry);

}  // namespace qcache

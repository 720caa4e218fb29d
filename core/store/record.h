#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/base/digest.h"
#include "core/base/env.h"
#include "core/base/result.h"

namespace qcache {

/// The state of a sealed file's inode when its record was written. Any write, rename or restore changes it, so
/// a file that still matches holds the bytes that were sealed, and one that does not must be hashed before it
/// is served. The number of its device does not count: a disk may come back under another one.
struct BackingStamp {
  uint64_t inode = 0;
  uint64_t size_bytes = 0;
  int64_t mtime_ns = 0;
  int64_t ctime_ns = 0;

  static BackingStamp of(const FileStat& stat);
  friend bool operator==(const BackingStamp&, const BackingStamp&) = default;
};

/// What the catalog knows of one sealed file. The digests of its tiles are kept beside it
/// (Catalog::tile_digests, parts), because listing and aging never need them.
struct Record {
  std::string file;          ///< key: file name in the cache directory
  std::string virtual_path;  ///< "<model>/<dtype>/<rank>.bin" when it was made
  std::string model_path;    ///< absolute folder of the source
  std::string dtype;         ///< canonical scheme name
  uint32_t rank = 0;
  Sha256Digest recipe{};  ///< what decides the bytes: see FillingKey::recipe
  /// What of the recipe is not the state of the source: of two files of one name and method one is of an older state.
  /// Zeros: not known (an earlier qcache made the file).
  Sha256Digest method{};
  uint32_t scheme_version = 0;
  uint64_t size_bytes = 0;
  uint32_t tile_count = 0;
  Sha256Digest sha256{};  ///< of the whole file; zeros: not known yet
  /// FileParts::root() of what vouches for the bytes until that is known. Zeros: the whole was hashed before the file
  /// was sealed, as earlier builds do.
  Sha256Digest root{};
  BackingStamp backing;
  int64_t created_ns = 0;
  int64_t accessed_ns = 0;
  uint64_t hits = 0;  ///< opens since it was made
  bool pinned = false;

  /// What tells its bytes from others for as long as the record lives.
  [[nodiscard]] const Sha256Digest& contents() const { return has_parts() ? root : sha256; }
  [[nodiscard]] bool has_parts() const { return root != Sha256Digest{}; }
  [[nodiscard]] bool is_hashed() const { return sha256 != Sha256Digest{}; }
};

/// The longest encoded record: two paths and some 300 bytes.
inline constexpr size_t kMaxRecordBytes = 8192;

/// CBOR map with short fixed keys and a schema number. Unknown keys are ignored, so that an older build can read
/// what a newer one wrote within one schema; a newer schema is kUnsupported, malformed bytes are kCorrupt.
std::vector<uint8_t> encode_record(const Record& record);
Result<Record> decode_record(std::span<const uint8_t> bytes);

}  // namespace qcache

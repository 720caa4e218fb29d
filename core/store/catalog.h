#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "core/store/quality.h"
#include "core/store/record.h"

namespace qcache {

/// One opening of a sealed file, to be added to its record.
struct AccessUpdate {
  std::string file;
  int64_t accessed_ns = 0;
  uint64_t hits = 0;  ///< to add
};

/// What is found out of a sealed file in quiet.
struct Amendment {
  Sha256Digest sha256{};               ///< of the whole file
  std::vector<TensorQuality> quality;  ///< empty: not measured, what is known stays
};

/// Tests choose smaller numbers, to come to the limits.
struct CatalogOptions {
  /// Address space to begin with: sparse on disk, and doubled when it is full.
  uint64_t map_bytes = uint64_t{4} << 30U;
  /// How long another process may keep writers, and readers, waiting.
  std::chrono::milliseconds write_patience{30'000};
  std::chrono::milliseconds read_patience{5'000};
};

/// The records of all sealed files of one cache directory, shared by every process that uses the directory. There is
/// one kind (LMDB, as open() makes it); a Store takes any, for tests to let calls fail.
///
/// A record exists only for a file whose bytes were durable under their final name before; a commit is atomic and
/// durable. Open it after forking, once per process and directory: open() returns the same object to later
/// callers. Thread-safe: reads do not wait for writes, nor for the disk; writes wait for each other, across processes
/// too. Whoever waits for a stopped process gets kBusy after a while.
/// Fails with kNoSpace on a full disk, after which the catalog still works. Opening it and reading need no room.
/// Damaged files are moved aside (`index.corrupt-<time>` beside `index`), an error is logged,
/// and a new catalog is begun (Store looks for what it had), also where somebody has them open, who follows. A record
/// that cannot be decoded counts as none.
class Catalog {
 public:
  virtual ~Catalog() = default;

  /// The longest name that a file may have in it.
  static constexpr size_t kMaxFileBytes = 500;

  /// Opens or creates the catalog in directory `path` (which exists). kUnsupported, and nothing is touched, where a
  /// newer qcache wrote it, or another LMDB; kBusy where an older qcache has it open. `options` count for the first
  /// opening in this process.
  static Result<std::shared_ptr<Catalog>> open(const std::string& path, const CatalogOptions& options = {});

  virtual Result<std::optional<Record>> find(const std::string& file) = 0;
  /// In file order: one digest per tile; empty where there is no such record.
  virtual Result<std::vector<Sha256Digest>> tile_digests(const std::string& file) = 0;
  /// FileParts as they are encoded; empty where there is no such record, or the file was sealed without.
  virtual Result<std::vector<uint8_t>> parts(const std::string& file) = 0;
  /// How near each quantized weight of the file is to its source, in the file's order. Empty where that was not
  /// measured, nothing is quantized, the figures are damaged, or those of others than the Record::contents().
  virtual Result<std::vector<TensorQuality>> quality(const std::string& file, const Sha256Digest& contents) = 0;
  /// By file, in the order of its bytes.
  virtual Result<std::vector<Record>> list() = 0;
  /// The files that have an entry, whether or not it can be decoded, in the same order.
  virtual Result<std::vector<std::string>> files() = 0;
  /// Adds or replaces a record together with its tile digests, encoded parts (none: it has no root) and quality figures
  /// (none: not measured). REQUIRES:
  /// tiles.size() == record.tile_count. kInvalidArgument where a name in it is too long to be stored: that of the file
  /// (which must have one), or all of the record together (kMaxRecordBytes).
  virtual Status put(const Record& record, std::span<const Sha256Digest> tiles, std::span<const uint8_t> parts,
                     std::span<const TensorQuality> quality) = 0;
  /// The same without parts.
  Status put(const Record& record, std::span<const Sha256Digest> tiles, std::span<const TensorQuality> quality) {
    return put(record, tiles, {}, quality);
  }
  /// Adds what was found out of a file after it was sealed. kNotFound where there is no record of these contents.
  virtual Status amend(const std::string& file, const Sha256Digest& contents, const Amendment& amendment) = 0;
  /// Removes a record; absent is fine.
  virtual Status erase(const std::string& file) = 0;
  /// Adds hits and raises last-access times, in one commit; files without a record are skipped.
  virtual Status touch(std::span<const AccessUpdate> updates) = 0;
  /// kNotFound where there is no such record.
  virtual Status set_pinned(const std::string& file, bool pinned) = 0;

 protected:
  /// What put() refuses, whoever keeps the entries.
  static Status check_entry(const Record& record, std::span<const Sha256Digest> tiles);
};

}  // namespace qcache

#pragma once

#include <lmdb.h>
#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <utility>

#include "core/base/result.h"
#include "core/store/catalog.h"
#include "core/store/catalog_locks.h"
#include "core/store/catalog_presence.h"

namespace qcache {

/// A cursor, to be destroyed before its transaction ends.
class Cursor {
 public:
  Cursor() = default;
  ~Cursor() {
    if (cursor_ != nullptr) {
      mdb_cursor_close(cursor_);
    }
  }
  Cursor(const Cursor&) = delete;
  Cursor& operator=(const Cursor&) = delete;

  [[nodiscard]] int open(MDB_txn* txn, MDB_dbi database) { return mdb_cursor_open(txn, database, &cursor_); }
  [[nodiscard]] int next(MDB_val& key, MDB_val& value) { return mdb_cursor_get(cursor_, &key, &value, MDB_NEXT); }

 private:
  MDB_cursor* cursor_ = nullptr;
};

/// A key or a value to be given to LMDB, which takes void* but does not write there.
[[nodiscard]] inline MDB_val view_of(const void* data, size_t size) {
  return {size, const_cast<void*>(data)};  // NOLINT(cppcoreguidelines-pro-type-const-cast)
}
[[nodiscard]] inline MDB_val view_of(std::string_view text) {
  return view_of(text.data(), text.size());
}
[[nodiscard]] inline std::string_view text_of(const MDB_val& value) {
  return {static_cast<const char*>(value.mv_data), value.mv_size};
}

/// The LMDB environment of a catalog: opens it, runs transactions in it, and mends what can be mended without the
/// caller: a full map is enlarged, growth by another process adopted, damaged files moved aside. Another
/// process that has those open finds out by their name, before it writes and at least every 100 ms, and follows.
///
/// LMDB runs without its own locks (see CatalogLocks), and nothing is stored through a mapping, so a full disk is an
/// error and no signal. What nobody else has open is examined (see catalog_examination.h) before LMDB sees it.
/// A commit is durable when write() returns; others see it a moment before.
/// Thread-safe once open() has succeeded. One per process and directory.
class LmdbEnvironment {
 public:
  LmdbEnvironment(std::string path, const CatalogOptions& options);
  ~LmdbEnvironment() { close_files(); }
  LmdbEnvironment(const LmdbEnvironment&) = delete;
  LmdbEnvironment& operator=(const LmdbEnvironment&) = delete;

  Status open() { return open_files(); }

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] MDB_dbi records() const { return records_; }
  [[nodiscard]] MDB_dbi tiles() const { return tiles_; }
  [[nodiscard]] MDB_dbi quality() const { return quality_; }

  /// What a transaction does, told as LMDB's return code; anything but 0 aborts it. It may be run more than once.
  using Body = std::function<int(MDB_txn*)>;
  /// kBusy where a process was stopped at the end of a commit, and stays so.
  Status read(const Body& body) { return run(/*writes=*/false, "read", body); }
  /// kBusy where another process does not end its writing, or its reading of what this would replace.
  Status write(const Body& body) { return run(/*writes=*/true, "write to", body); }

 private:
  struct Closer {
    void operator()(MDB_env* env) const { mdb_env_close(env); }
  };
  // What an attempt ran on, so that of several threads that failed on it one mends it.
  struct Ground {
    uint64_t generation = 0;
    size_t map_bytes = 0;
  };

  Status run(bool writes, std::string_view purpose, const Body& body);
  // These three tell LMDB's return code; an error is one of waiting for a lock.
  Result<int> attempt(bool writes, const Body& body, Ground& ground);
  Result<int> read_once(const Body& body);
  Result<int> write_once(const Body& body);
  // The number of the newest snapshot.
  [[nodiscard]] uint64_t snapshot() const;
  [[nodiscard]] size_t map_bytes() const;
  [[nodiscard]] bool file_is_ours(bool writes);
  Status grow(const Ground& seen);
  void adopt_growth();
  Status reopen(const Ground& seen);

  Status open_files();
  void close_files();
  enum class Place {
    kFirst,        ///< nobody else has it open, and there is nothing yet
    kAlone,        ///< nobody else has it open
    kAmongOthers,  ///< who have examined it
  };
  Result<Place> take_place();
  Result<int> open_environment(Place place);
  int begin_anew();
  int map_file(const std::string& file);
  std::array<std::pair<const char*, MDB_dbi*>, 4> databases();
  int find_databases(MDB_txn* txn, bool create_quality);
  int put_schema(MDB_txn* txn) const;
  Status move_aside();
  Result<bool> move_aside_from_others();
  [[nodiscard]] std::string data_file() const { return path_ + "/data.mdb"; }

  const std::string path_;
  const CatalogOptions options_;
  const pid_t pid_;

  // Shared while a transaction runs, exclusive while the environment is resized or reopened, which LMDB allows only
  // without transactions. The mutex of CatalogLocks is taken under it, and no other.
  std::shared_mutex gate_;
  std::optional<CatalogPresence> presence_;
  std::optional<CatalogLocks> locks_;  // on the file of presence_
  std::unique_ptr<MDB_env, Closer> env_;
  uint64_t generation_ = 0;              // of env_
  std::atomic<off_t> least_bytes_ = 0;   // its file has had
  std::atomic<int64_t> look_at_ns_ = 0;  // when to look again whether its name leads to it
  MDB_dbi meta_ = 0;
  MDB_dbi records_ = 0;
  MDB_dbi tiles_ = 0;
  MDB_dbi quality_ = 0;
  std::string schema_;
  // The disk was too full to say that this catalog is ours now. Until the first commit does, nobody else may open it.
  // Of the only writer.
  bool schema_pending_ = false;
};

}  // namespace qcache

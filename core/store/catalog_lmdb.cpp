#include "core/store/catalog_lmdb.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <unordered_map>
#include <utility>

#include "core/base/mutex.h"
#include "core/store/lmdb_environment.h"

namespace qcache {
namespace {

/// The records that were decoded last, with the bytes that they were decoded from: decoding one takes longer than
/// finding it, and who looks at files mostly looks at the same ones. Thread-safe.
class DecodedRecords {
 public:
  [[nodiscard]] std::optional<Record> find(const std::string& file, std::span<const uint8_t> bytes) const
      QCACHE_EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    const auto known = entries_.find(file);
    const bool is_same = known != entries_.end() && std::ranges::equal(known->second.bytes, bytes);
    return is_same ? std::optional(known->second.record) : std::nullopt;
  }

  void keep(const Record& record, std::span<const uint8_t> bytes) QCACHE_EXCLUDES(mutex_) {
    constexpr size_t kMaxEntries = 256;
    const MutexLock lock(mutex_);
    if (entries_.size() >= kMaxEntries) {
      entries_.clear();  // rare, and cheap to fill again
    }
    entries_.insert_or_assign(record.file, Entry{{bytes.begin(), bytes.end()}, record});
  }

 private:
  struct Entry {
    std::vector<uint8_t> bytes;
    Record record;
  };

  mutable Mutex mutex_;
  std::unordered_map<std::string, Entry> entries_ QCACHE_GUARDED_BY(mutex_);
};

// Where a file's parts are, among the digests of its tiles: no file has such a name. A database of their own would have
// to be made in catalogs of earlier builds, which on a full disk could not be opened then.
std::string parts_key(const std::string& file) {
  return file + "/parts";
}

// A file is a key, whose length (Catalog::kMaxFileBytes, and that of the longest name made of one) is below LMDB's
// limit (511) as it is built by everybody.
class LmdbCatalog final : public Catalog {
 public:
  LmdbCatalog(const std::string& path, const CatalogOptions& options) : environment_(path, options) {}
  Status open() { return environment_.open(); }

  Result<std::optional<Record>> find(const std::string& file) override;
  Result<std::vector<Sha256Digest>> tile_digests(const std::string& file) override;
  Result<std::vector<TensorQuality>> quality(const std::string& file, const Sha256Digest& contents) override;
  Result<std::vector<Record>> list() override;
  Result<std::vector<std::string>> files() override;
  Result<std::vector<uint8_t>> parts(const std::string& file) override;
  using Catalog::put;
  Status put(const Record& record, std::span<const Sha256Digest> tiles, std::span<const uint8_t> parts,
             std::span<const TensorQuality> quality) override;
  Status amend(const std::string& file, const Sha256Digest& contents, const Amendment& amendment) override;
  Status erase(const std::string& file) override;
  Status touch(std::span<const AccessUpdate> updates) override;
  Status set_pinned(const std::string& file, bool pinned) override;

 private:
  using Database = MDB_dbi (LmdbEnvironment::*)() const;
  // Its bytes, which are there during the call only, or null where there are none. May be called more than once.
  using UseValue = std::function<void(const uint8_t* data, size_t size)>;
  Status read_value(Database database, const std::string& file, const UseValue& use);
  [[nodiscard]] std::optional<Record> decode(std::string_view file, const void* data, size_t size) const;
  int put_record(MDB_txn* txn, const Record& record) const;
  // Of a record that is there; MDB_NOTFOUND where it is not the one that is meant.
  using Change = std::function<int(Record& record, MDB_txn* txn)>;
  Status change(const std::string& file, const Change& change);

  LmdbEnvironment environment_;
  DecodedRecords decoded_;
};

std::optional<Record> LmdbCatalog::decode(std::string_view file, const void* data, size_t size) const {
  auto record = decode_record({static_cast<const uint8_t*>(data), size});
  if (record.has_value() && record->file == file) {
    return std::move(*record);
  }
  spdlog::warn("the record of {} in {} is ignored: {}", file, environment_.path(),
               record.has_value() ? "it names another file" : record.error().message);
  return std::nullopt;
}

int LmdbCatalog::put_record(MDB_txn* txn, const Record& record) const {
  const std::vector<uint8_t> bytes = encode_record(record);
  MDB_val key = view_of(record.file);
  MDB_val value = view_of(bytes.data(), bytes.size());
  return mdb_put(txn, environment_.records(), &key, &value, 0);
}

Status LmdbCatalog::read_value(Database database, const std::string& file, const UseValue& use) {
  return environment_.read([&](MDB_txn* txn) {
    MDB_val key = view_of(file);
    MDB_val value{};
    const int rc = mdb_get(txn, (environment_.*database)(), &key, &value);
    if (rc == MDB_NOTFOUND || rc == MDB_BAD_VALSIZE) {
      use(nullptr, 0);
      return 0;
    }
    if (rc == 0) {
      use(static_cast<const uint8_t*>(value.mv_data), value.mv_size);
    }
    return rc;
  });
}

Result<std::optional<Record>> LmdbCatalog::find(const std::string& file) {
  std::optional<Record> found;
  QCACHE_TRY(read_value(&LmdbEnvironment::records, file, [&](const uint8_t* data, size_t size) {
    if (data == nullptr) {
      found = std::nullopt;
      return;
    }
    found = decoded_.find(file, {data, size});
    if (!found.has_value()) {
      found = decode(file, data, size);
      if (found.has_value()) {
        decoded_.keep(*found, {data, size});
      }
    }
  }));
  return found;
}

Result<std::vector<Sha256Digest>> LmdbCatalog::tile_digests(const std::string& file) {
  std::vector<Sha256Digest> digests;
  QCACHE_TRY(read_value(&LmdbEnvironment::tiles, file, [&](const uint8_t* data, size_t size) {
    digests.assign(size / sizeof(Sha256Digest), {});
    if (!digests.empty()) {
      std::memcpy(digests.data(), data, digests.size() * sizeof(Sha256Digest));
    }
  }));
  return digests;
}

Result<std::vector<TensorQuality>> LmdbCatalog::quality(const std::string& file, const Sha256Digest& contents) {
  Result<std::vector<TensorQuality>> figures;
  QCACHE_TRY(read_value(&LmdbEnvironment::quality, file, [&](const uint8_t* data, size_t size) {
    figures = data == nullptr ? std::vector<TensorQuality>() : decode_quality(contents, {data, size});
  }));
  if (!figures.has_value()) {
    spdlog::warn("{} ({} in {})", figures.error().message, file, environment_.path());
    return std::vector<TensorQuality>();
  }
  return figures;
}

Result<std::vector<Record>> LmdbCatalog::list() {
  std::vector<Record> all;
  QCACHE_TRY(environment_.read([&](MDB_txn* txn) {
    all.clear();
    Cursor cursor;
    int rc = cursor.open(txn, environment_.records());
    MDB_val key{};
    MDB_val value{};
    while (rc == 0 && (rc = cursor.next(key, value)) == 0) {
      if (auto record = decode(text_of(key), value.mv_data, value.mv_size)) {
        all.push_back(std::move(*record));
      }
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
  }));
  return all;
}

Result<std::vector<std::string>> LmdbCatalog::files() {
  std::vector<std::string> all;
  QCACHE_TRY(environment_.read([&](MDB_txn* txn) {
    all.clear();
    Cursor cursor;
    int rc = cursor.open(txn, environment_.records());
    MDB_val key{};
    MDB_val value{};
    while (rc == 0 && (rc = cursor.next(key, value)) == 0) {
      all.emplace_back(text_of(key));
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
  }));
  return all;
}

Result<std::vector<uint8_t>> LmdbCatalog::parts(const std::string& file) {
  std::vector<uint8_t> bytes;
  QCACHE_TRY(read_value(&LmdbEnvironment::tiles, parts_key(file),
                        [&](const uint8_t* data, size_t size) { bytes.assign(data, data + size); }));
  return bytes;
}

Status LmdbCatalog::put(const Record& record, std::span<const Sha256Digest> tiles, std::span<const uint8_t> parts,
                        std::span<const TensorQuality> quality) {
  QCACHE_TRY(check_entry(record, tiles));
  const std::vector<uint8_t> figures = encode_quality(record.contents(), quality);
  const std::string key_of_parts = parts_key(record.file);
  return environment_.write([&](MDB_txn* txn) {
    if (const int rc = put_record(txn, record); rc != 0) {
      return rc;
    }
    MDB_val key = view_of(record.file);
    MDB_val value = view_of(tiles.data(), tiles.size_bytes());
    if (const int rc = mdb_put(txn, environment_.tiles(), &key, &value, 0); rc != 0) {
      return rc;
    }
    value = view_of(figures.data(), figures.size());
    if (const int rc = mdb_put(txn, environment_.quality(), &key, &value, 0); rc != 0) {
      return rc;
    }
    key = view_of(key_of_parts);
    if (parts.empty()) {
      const int rc = mdb_del(txn, environment_.tiles(), &key, nullptr);
      return rc == MDB_NOTFOUND ? 0 : rc;
    }
    value = view_of(parts.data(), parts.size());
    return mdb_put(txn, environment_.tiles(), &key, &value, 0);
  });
}

Status LmdbCatalog::erase(const std::string& file) {
  return environment_.write([&](MDB_txn* txn) {
    const std::pair<MDB_dbi, std::string> keys[] = {{environment_.records(), file},
                                                    {environment_.tiles(), file},
                                                    {environment_.tiles(), parts_key(file)},
                                                    {environment_.quality(), file}};
    for (const auto& [database, name] : keys) {
      MDB_val key = view_of(name);
      const int rc = mdb_del(txn, database, &key, nullptr);
      if (rc != 0 && rc != MDB_NOTFOUND && rc != MDB_BAD_VALSIZE) {
        return rc;
      }
    }
    return 0;
  });
}

Status LmdbCatalog::touch(std::span<const AccessUpdate> updates) {
  return environment_.write([&](MDB_txn* txn) {
    for (const AccessUpdate& update : updates) {
      MDB_val key = view_of(update.file);
      MDB_val value{};
      int rc = mdb_get(txn, environment_.records(), &key, &value);
      if (rc == MDB_NOTFOUND || rc == MDB_BAD_VALSIZE) {
        continue;
      }
      if (rc != 0) {
        return rc;
      }
      if (auto record = decode(text_of(key), value.mv_data, value.mv_size)) {
        record->accessed_ns = std::max(record->accessed_ns, update.accessed_ns);
        record->hits += update.hits;
        rc = put_record(txn, *record);
      }
      if (rc != 0) {
        return rc;
      }
    }
    return 0;
  });
}

Status LmdbCatalog::change(const std::string& file, const Change& change) {
  bool found = false;
  QCACHE_TRY(environment_.write([&](MDB_txn* txn) {
    found = false;
    MDB_val key = view_of(file);
    MDB_val value{};
    int rc = mdb_get(txn, environment_.records(), &key, &value);
    if (rc == MDB_NOTFOUND || rc == MDB_BAD_VALSIZE) {
      return 0;
    }
    auto record = rc == 0 ? decode(text_of(key), value.mv_data, value.mv_size) : std::nullopt;
    if (!record.has_value()) {
      return rc;
    }
    rc = change(*record, txn);
    if (rc == MDB_NOTFOUND) {
      return 0;
    }
    found = true;
    return rc == 0 ? put_record(txn, *record) : rc;
  }));
  if (!found) {
    return fail(ErrorKind::kNotFound, fmt::format("{} is not in the catalog {}", file, environment_.path()));
  }
  return {};
}

Status LmdbCatalog::set_pinned(const std::string& file, bool pinned) {
  return change(file, [&](Record& record, MDB_txn* /*txn*/) {
    record.pinned = pinned;
    return 0;
  });
}

Status LmdbCatalog::amend(const std::string& file, const Sha256Digest& contents, const Amendment& amendment) {
  const std::vector<uint8_t> figures = encode_quality(contents, amendment.quality);
  return change(file, [&](Record& record, MDB_txn* txn) {
    if (record.contents() != contents) {
      return MDB_NOTFOUND;
    }
    record.sha256 = amendment.sha256;
    MDB_val key = view_of(file);
    MDB_val value = view_of(figures.data(), figures.size());
    return amendment.quality.empty() ? 0 : mdb_put(txn, environment_.quality(), &key, &value, 0);
  });
}

}  // namespace

Result<std::unique_ptr<Catalog>> open_lmdb_catalog(const std::string& path, const CatalogOptions& options) {
  auto catalog = std::make_unique<LmdbCatalog>(path, options);
  QCACHE_TRY(catalog->open());
  return catalog;
}

}  // namespace qcache

#include "core/store/record.h"

#include <algorithm>
#include <exception>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

namespace qcache {
namespace {

using nlohmann::json;

// A record is a CBOR map. The keys are part of the format: never reuse one for something else.
//
//   "s"  schema number           "r"  rank                "sha" SHA-256 of the file (32 bytes)
//   "f"  file name               "rec" recipe (32 bytes)  "b"   [0, inode, size, mtime, ctime]
//   "v"  virtual path            "sv" scheme version      "c"   created, ns since the epoch
//   "m"  model folder            "n"  size in bytes       "a"   last access, ns since the epoch
//   "d"  dtype                   "t"  tile count          "h"   hits     "p"  pinned
//   "mk" method (32 bytes; may be missing)
//   "root" root of the parts (32 bytes; may be missing; where it is there, "sha" may be)
constexpr uint64_t kSchema = 1;

// Walks CBOR and stops where it nests deeper than any record: the parser is recursive, and damaged bytes must not be
// able to exhaust the stack.
class NestingCheck final : public nlohmann::json_sax<json> {
 public:
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool key(string_t&) override { return true; }
  bool start_object(std::size_t) override { return enter(); }
  bool end_object() override { return leave(); }
  bool start_array(std::size_t) override { return enter(); }
  bool end_array() override { return leave(); }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override { return false; }

 private:
  static constexpr int kMaxDepth = 16;  // format 1 needs 2
  bool enter() { return ++depth_ <= kMaxDepth; }
  bool leave() {
    --depth_;
    return true;
  }
  int depth_ = 0;
};

// Reads members out of a parsed map, and remembers whether any was missing or of the wrong type.
class Reader {
 public:
  explicit Reader(const json& map) : map_(map) {}

  [[nodiscard]] bool good() const { return good_; }

  template <typename Number>
  void read(const char* key, Number& out) {
    take(find(key), out);
  }
  void read(const char* key, std::string& out) {
    const json* const value = find(key);
    if (value != nullptr && value->is_string()) {
      out = value->get_ref<const std::string&>();
    } else {
      good_ = false;
    }
  }
  void read(const char* key, bool& out) {
    const json* const value = find(key);
    if (value != nullptr && value->is_boolean()) {
      out = value->get<bool>();
    } else {
      good_ = false;
    }
  }
  void read(const char* key, Sha256Digest& out) {
    const json* const value = find(key);
    if (value != nullptr && value->is_binary() && value->get_binary().size() == out.size()) {
      std::copy_n(value->get_binary().begin(), out.size(), out.begin());
    } else {
      good_ = false;
    }
  }
  void read(const char* key, BackingStamp& out) {
    const json* const value = find(key);
    if (value == nullptr || !value->is_array() || value->size() != 5) {
      good_ = false;
      return;
    }
    take(&(*value)[1], out.inode);
    take(&(*value)[2], out.size_bytes);
    take(&(*value)[3], out.mtime_ns);
    take(&(*value)[4], out.ctime_ns);
  }

 private:
  const json* find(const char* key) const {
    const auto found = map_.find(key);
    return found == map_.end() ? nullptr : &*found;
  }
  template <typename Number>
  void take(const json* value, Number& out) {
    if (value != nullptr && value->is_number_unsigned() &&
        value->get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<Number>::max())) {
      out = static_cast<Number>(value->get<uint64_t>());
    } else if (std::numeric_limits<Number>::is_signed && value != nullptr && value->is_number_integer() &&
               !value->is_number_unsigned()) {
      out = static_cast<Number>(value->get<int64_t>());
    } else {
      good_ = false;
    }
  }

  const json& map_;
  bool good_ = true;
};

json binary(const Sha256Digest& digest) {
  return json::binary(std::vector<uint8_t>(digest.begin(), digest.end()));
}

}  // namespace

BackingStamp BackingStamp::of(const FileStat& stat) {
  return {stat.inode, stat.size_bytes, stat.mtime_ns, stat.ctime_ns};
}

std::vector<uint8_t> encode_record(const Record& record) {
  const BackingStamp& backing = record.backing;
  json map = {
      {"s", kSchema},
      {"f", record.file},
      {"v", record.virtual_path},
      {"m", record.model_path},
      {"d", record.dtype},
      {"r", record.rank},
      {"rec", binary(record.recipe)},
      {"mk", binary(record.method)},
      {"sv", record.scheme_version},
      {"n", record.size_bytes},
      {"t", record.tile_count},
      {"b", json::array({0, backing.inode, backing.size_bytes, backing.mtime_ns, backing.ctime_ns})},
      {"c", record.created_ns},
      {"a", record.accessed_ns},
      {"h", record.hits},
      {"p", record.pinned},
  };
  if (record.has_parts()) {
    map["root"] = binary(record.root);
  }
  if (record.is_hashed() || !record.has_parts()) {
    map["sha"] = binary(record.sha256);
  }
  return json::to_cbor(map);
}

Result<Record> decode_record(std::span<const uint8_t> bytes) {
  if (bytes.size() > kMaxRecordBytes) {
    return fail(ErrorKind::kCorrupt, "a record of the catalog is too long");
  }
  try {
    NestingCheck check;
    if (!json::sax_parse(bytes.begin(), bytes.end(), &check, json::input_format_t::cbor)) {
      return fail(ErrorKind::kCorrupt, "a record of the catalog is not well-formed CBOR");
    }
    const json map = json::from_cbor(bytes, /*strict=*/true, /*allow_exceptions=*/false);
    if (!map.is_object()) {
      return fail(ErrorKind::kCorrupt, "a record of the catalog is not a CBOR map");
    }
    Reader reader(map);
    uint64_t schema = 0;
    reader.read("s", schema);
    if (reader.good() && schema > kSchema) {
      return fail(ErrorKind::kUnsupported, "a record of the catalog was written by a newer qcache");
    }
    Record record;
    reader.read("f", record.file);
    reader.read("v", record.virtual_path);
    reader.read("m", record.model_path);
    reader.read("d", record.dtype);
    reader.read("r", record.rank);
    reader.read("rec", record.recipe);
    if (map.contains("mk")) {
      reader.read("mk", record.method);
    }
    reader.read("sv", record.scheme_version);
    reader.read("n", record.size_bytes);
    reader.read("t", record.tile_count);
    if (map.contains("root")) {
      reader.read("root", record.root);
    }
    if (map.contains("sha") || !map.contains("root")) {
      reader.read("sha", record.sha256);
    }
    reader.read("b", record.backing);
    reader.read("c", record.created_ns);
    reader.read("a", record.accessed_ns);
    reader.read("h", record.hits);
    reader.read("p", record.pinned);
    if (!reader.good() || schema != kSchema) {
      return fail(ErrorKind::kCorrupt, "a record of the catalog lacks a field, or a field has the wrong type");
    }
    return record;
  } catch (const std::exception& e) {
    return fail(ErrorKind::kCorrupt, std::string("a record of the catalog cannot be read: ") + e.what());
  }
}

}  // namespace qcache

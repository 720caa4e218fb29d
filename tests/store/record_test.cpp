#include "core/store/record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "tests/support/result_matchers.h"

namespace qcache {
namespace {

using nlohmann::json;
using testing::HasSubstr;

Record full_record() {
  Record record;
  record.file = "quantized_model_0.bin";
  record.virtual_path = "m\xff/int8/16.bin";  // file names need not be UTF-8
  record.model_path = "/models/m\xff";
  record.dtype = "int8";
  record.rank = 16;
  record.recipe.fill(0xfe);
  record.method.fill(0x7f);
  record.scheme_version = 3;
  record.size_bytes = uint64_t{1} << 40U;
  record.tile_count = 7;
  record.sha256.fill(0x80);
  record.backing = {std::numeric_limits<uint64_t>::max(), uint64_t{1} << 40U, -5, std::numeric_limits<int64_t>::max()};
  record.created_ns = 1;
  record.accessed_ns = -1;
  record.hits = std::numeric_limits<uint64_t>::max();
  record.pinned = true;
  return record;
}

json parsed(const Record& record) {
  return json::from_cbor(encode_record(record));
}
Result<Record> decoded(const json& map) {
  return decode_record(json::to_cbor(map));
}

TEST(Record, ComesBackAsItWas) {
  const Record record = full_record();
  const auto back = decode_record(encode_record(record));
  ASSERT_THAT(back, is_ok());
  EXPECT_EQ(back->file, record.file);
  EXPECT_EQ(back->virtual_path, record.virtual_path);
  EXPECT_EQ(back->model_path, record.model_path);
  EXPECT_EQ(back->dtype, record.dtype);
  EXPECT_EQ(back->rank, record.rank);
  EXPECT_EQ(back->recipe, record.recipe);
  EXPECT_EQ(back->method, record.method);
  EXPECT_EQ(back->scheme_version, record.scheme_version);
  EXPECT_EQ(back->size_bytes, record.size_bytes);
  EXPECT_EQ(back->tile_count, record.tile_count);
  EXPECT_EQ(back->sha256, record.sha256);
  EXPECT_EQ(back->backing, record.backing);
  EXPECT_EQ(back->created_ns, record.created_ns);
  EXPECT_EQ(back->accessed_ns, record.accessed_ns);
  EXPECT_EQ(back->hits, record.hits);
  EXPECT_EQ(back->pinned, record.pinned);
}

TEST(Record, KeepsItsBytesInFormatOne) {
  // What is on users' disks. If this fails, the schema number must be raised and the old bytes must still be read.
  Record record;
  record.file = "f";
  record.virtual_path = "v";
  EXPECT_EQ(to_hex(encode_record(record)).substr(0, 62),
            "b1616100616285000000000061630061646061666166616800616d60626d6b");
  json earlier = parsed(full_record());
  earlier.erase("mk");
  earlier["b"][0] = 66;  // the device
  const auto read = decoded(earlier);
  ASSERT_THAT(read, is_ok());
  EXPECT_EQ(read->method, Sha256Digest{});
  EXPECT_EQ(read->backing, full_record().backing);
}

TEST(Record, IgnoresKeysOfLaterBuilds) {
  json map = parsed(full_record());
  map["later"] = json::array({1, 2, 3});
  ASSERT_THAT(decoded(map), is_ok());
}

TEST(Record, RefusesANewerSchema) {
  json map = parsed(full_record());
  map["s"] = 2;
  const auto back = decoded(map);
  ASSERT_FALSE(back.has_value());
  EXPECT_EQ(back.error().kind, ErrorKind::kUnsupported);
  EXPECT_THAT(back.error().message, HasSubstr("newer"));
}

TEST(Record, RefusesEveryMissingField) {
  const json map = parsed(full_record());
  for (const auto& item : map.items()) {
    if (item.key() == "mk") {
      continue;  // of later builds only
    }
    json less = map;
    less.erase(item.key());
    const auto back = decoded(less);
    ASSERT_FALSE(back.has_value()) << item.key();
    EXPECT_EQ(back.error().kind, ErrorKind::kCorrupt) << item.key();
  }
}

TEST(Record, RefusesFieldsOfTheWrongType) {
  const json map = parsed(full_record());
  for (const auto& item : map.items()) {
    for (const json& wrong :
         {json(nullptr), json(json::object()), json(1.5), json(json::array({1})), json(json::binary({1, 2, 3}))}) {
      json changed = map;
      changed[item.key()] = wrong;
      const auto back = decoded(changed);
      ASSERT_FALSE(back.has_value()) << item.key() << ' ' << wrong;
      EXPECT_EQ(back.error().kind, ErrorKind::kCorrupt) << item.key();
    }
  }
}

TEST(Record, RefusesNumbersThatDoNotFit) {
  for (const char* key : {"r", "sv", "t"}) {
    for (const json& wrong : {json(uint64_t{1} << 32U), json(-1)}) {
      json map = parsed(full_record());
      map[key] = wrong;
      const auto back = decoded(map);
      if (wrong == json(-1)) {
        EXPECT_FALSE(back.has_value()) << key << " = -1";
      } else {
        EXPECT_FALSE(back.has_value()) << key << " = 2^32";
      }
    }
  }
}

TEST(Record, RefusesEveryPrefixAndTrailingBytes) {
  const std::vector<uint8_t> bytes = encode_record(full_record());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(decode_record(std::span(bytes).first(size)).has_value()) << size;
  }
  std::vector<uint8_t> longer = bytes;
  longer.push_back(0);
  EXPECT_FALSE(decode_record(longer).has_value());
}

TEST(Record, RefusesDeepNestingWithoutHarm) {
  const std::vector<uint8_t> nested(kMaxRecordBytes, 0x81);  // arrays of one array of one array ...
  EXPECT_FALSE(decode_record(nested).has_value());
  EXPECT_FALSE(decode_record(std::vector<uint8_t>(1U << 20U, 0x81)).has_value());
}

TEST(BackingStamp, EveryFieldCountsButTheDevice) {
  FileStat stat;
  stat.inode = 2;
  stat.size_bytes = 3;
  stat.mtime_ns = 4;
  stat.ctime_ns = 5;
  const BackingStamp stamp = BackingStamp::of(stat);
  EXPECT_EQ(BackingStamp::of(stat), stamp);
  for (auto change : {+[](FileStat& s) { ++s.inode; }, +[](FileStat& s) { ++s.size_bytes; },
                      +[](FileStat& s) { ++s.mtime_ns; }, +[](FileStat& s) { ++s.ctime_ns; }}) {
    FileStat other = stat;
    change(other);
    EXPECT_NE(BackingStamp::of(other), stamp);
  }
  stat.device = 1;
  EXPECT_EQ(BackingStamp::of(stat), stamp);
}

}  // namespace
}  // namespace qcache

#include "core/layout/zip_format.h"

#include <gtest/gtest.h>

#include <cstring>

namespace qcache {
namespace {

template <typename T>
T number_at(const std::string& bytes, size_t offset) {
  T value = 0;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

constexpr uint64_t kFull = 0xFFFFFFFF;

TEST(ZipFormat, LocalHeaderGoesZip64WhereTheSizeReaches32Bits) {
  const ZipLocalHeader small = local_header({"archive/data/0", 1, kFull - 1, kFull + 5}, 64);
  EXPECT_EQ(number_at<uint16_t>(small.fixed, 4), 10);
  EXPECT_EQ(number_at<uint32_t>(small.fixed, 18), kFull - 1);
  EXPECT_EQ(number_at<uint32_t>(small.fixed, 22), kFull - 1);
  EXPECT_EQ(small.fixed.size(), 30U + 14 + 4);

  const ZipLocalHeader large = local_header({"archive/data/0", 1, kFull, 0}, 64);
  EXPECT_EQ(number_at<uint16_t>(large.fixed, 4), 45);
  EXPECT_EQ(number_at<uint32_t>(large.fixed, 18), kFull);
  EXPECT_EQ(number_at<uint32_t>(large.fixed, 22), kFull);
  EXPECT_EQ(large.fixed.size(), 30U + 14 + 20 + 4);
  EXPECT_EQ(number_at<uint16_t>(large.fixed, 28), 20 + 4 + large.padding);
  EXPECT_EQ(number_at<uint32_t>(large.fixed, 44), 0x00100001U);
  EXPECT_EQ(number_at<uint64_t>(large.fixed, 48), kFull);
  EXPECT_EQ(number_at<uint64_t>(large.fixed, 56), kFull);
}

TEST(ZipFormat, LocalHeaderEndsAtTheAlignment) {
  for (const uint32_t alignment : {1U, 2U, 64U, 100U, 4096U, kMaxZipAlignment}) {
    for (uint64_t offset = 0; offset < 5000; offset += 7) {
      for (const uint64_t size : {uint64_t{1}, kFull + 1}) {
        const ZipLocalHeader header = local_header({"archive/data/17", 0, size, offset}, alignment);
        ASSERT_EQ((offset + header.size()) % alignment, 0U);
        ASSERT_EQ(header.size(), local_header_bytes({"archive/data/17", 0, size, offset}, alignment));
        ASSERT_LT(header.padding, alignment);
        ASSERT_EQ(number_at<uint16_t>(header.fixed, header.fixed.size() - 2), header.padding);
        ASSERT_EQ(number_at<uint16_t>(header.fixed, 28), header.size() - 30 - 15);
      }
    }
  }
}

TEST(ZipFormat, CentralEntryHoldsJustTheLongFormsItNeeds) {
  struct Case {
    uint64_t size;
    uint64_t offset;
    uint16_t version;
    uint16_t extra;
  };
  const Case cases[] = {
      {kFull - 1, kFull - 1, 10, 0}, {kFull, kFull - 1, 45, 20}, {kFull - 1, kFull, 45, 12}, {kFull, kFull, 45, 28}};
  for (const Case& c : cases) {
    std::string entry;
    append_central_entry(entry, {"archive/data/0", 0x12345678, c.size, c.offset});
    ASSERT_EQ(entry.size(), 46U + 14 + c.extra);
    EXPECT_EQ(number_at<uint16_t>(entry, 6), c.version);
    EXPECT_EQ(number_at<uint32_t>(entry, 16), 0x12345678U);
    EXPECT_EQ(number_at<uint16_t>(entry, 30), c.extra);
    EXPECT_EQ(number_at<uint32_t>(entry, 20), std::min(c.size, kFull));
    EXPECT_EQ(number_at<uint32_t>(entry, 24), std::min(c.size, kFull));
    EXPECT_EQ(number_at<uint32_t>(entry, 42), std::min(c.offset, kFull));
    if (c.extra > 0) {
      EXPECT_EQ(number_at<uint16_t>(entry, 60), 1);
      EXPECT_EQ(number_at<uint16_t>(entry, 62), c.extra - 4);
    }
    if (c.size == kFull) {
      EXPECT_EQ(number_at<uint64_t>(entry, 64), c.size);
      EXPECT_EQ(number_at<uint64_t>(entry, 72), c.size);
    }
    if (c.offset == kFull) {
      EXPECT_EQ(number_at<uint64_t>(entry, entry.size() - 8), c.offset);
    }
  }
}

TEST(ZipFormat, EndGoesZip64JustWhereANumberDoesNotFit) {
  struct Case {
    uint64_t entries;
    uint64_t offset;
    uint64_t bytes;
    bool zip64;
  };
  const Case cases[] = {{65534, kFull - 1, kFull - 1, false},
                        {65535, 0, 0, true},
                        {0x12345, 5, 6, true},
                        {1, kFull, 0, true},
                        {1, 0, kFull, true},
                        {0, 0, 0, false}};
  for (const Case& c : cases) {
    std::string end;
    append_directory_end(end, c.entries, c.offset, c.bytes);
    ASSERT_EQ(end.size(), c.zip64 ? 98U : 22U) << c.entries;
    const size_t tail = end.size() - 22;
    EXPECT_EQ(number_at<uint32_t>(end, tail), 0x06054B50U);
    EXPECT_EQ(number_at<uint16_t>(end, tail + 8), std::min<uint64_t>(c.entries, 65535));
    EXPECT_EQ(number_at<uint16_t>(end, tail + 10), std::min<uint64_t>(c.entries, 65535));
    EXPECT_EQ(number_at<uint32_t>(end, tail + 12), std::min(c.bytes, kFull));
    EXPECT_EQ(number_at<uint32_t>(end, tail + 16), std::min(c.offset, kFull));
    if (c.zip64) {
      EXPECT_EQ(number_at<uint32_t>(end, 0), 0x06064B50U);
      EXPECT_EQ(number_at<uint64_t>(end, 4), 44U);
      EXPECT_EQ(number_at<uint64_t>(end, 24), c.entries);
      EXPECT_EQ(number_at<uint64_t>(end, 32), c.entries);
      EXPECT_EQ(number_at<uint64_t>(end, 40), c.bytes);
      EXPECT_EQ(number_at<uint64_t>(end, 48), c.offset);
      EXPECT_EQ(number_at<uint32_t>(end, 56), 0x07064B50U);
      EXPECT_EQ(number_at<uint64_t>(end, 64), c.offset + c.bytes);
      EXPECT_EQ(number_at<uint32_t>(end, 72), 1U);
    }
  }
}

}  // namespace
}  // namespace qcache

#include "core/base/digest.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace qcache {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

TEST(Digest, KnownValues) {
  EXPECT_EQ(to_hex(sha256(bytes_of("abc"))), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(to_hex(sha256({})), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  // The key that users of the earlier Python cache have on disk.
  EXPECT_EQ(md5_hex("Qwen/Qwen-Image_torch.bfloat16_16"), "1a046136d1cd897065418b5c584b52ec");
  EXPECT_EQ(crc32(0, bytes_of("123456789")), 0xCBF43926U);
}

TEST(Digest, Sha256StartsAnewAfterFinish) {
  Sha256 hash;
  hash.update("ab");
  hash.update("c");
  const Sha256Digest first = hash.finish();
  hash.update("abc");
  EXPECT_EQ(hash.finish(), first);
}

TEST(Digest, CombinedCrcEqualsTheCrcOfTheWhole) {
  std::mt19937_64 random(1);
  std::vector<std::byte> data(100'000);
  for (std::byte& b : data) {
    b = static_cast<std::byte>(random());
  }
  for (const size_t cut : {size_t{0}, size_t{1}, size_t{4096}, size_t{99'999}, data.size()}) {
    const std::span<const std::byte> all(data);
    const uint32_t a = crc32(0, all.first(cut));
    const uint32_t b = crc32(0, all.subspan(cut));
    EXPECT_EQ(crc32_combine(a, b, data.size() - cut), crc32(0, all)) << cut;
  }
}

}  // namespace
}  // namespace qcache

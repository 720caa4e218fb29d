#include "core/layout/torch_pickle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace qcache {
namespace {

using namespace std::string_literals;
using testing::HasSubstr;

/// A pickle that is written tensor by tensor.
class Pickle {
 public:
  bool add(std::string_view name, DType dtype, const std::vector<uint64_t>& shape, uint64_t storage_bytes) {
    const bool added = append_pickled_tensor(text_, count_, name, dtype, shape, storage_bytes);
    count_ += added ? 1 : 0;
    return added;
  }
  [[nodiscard]] std::string finish() const { return text_ + std::string(pickle_end()); }

 private:
  std::string text_{pickle_begin()};
  uint64_t count_ = 0;
};

std::string pickle_of(DType dtype, const std::vector<uint64_t>& shape, uint64_t storage_bytes) {
  Pickle pickle;
  EXPECT_TRUE(pickle.add("w", dtype, shape, storage_bytes));
  return pickle.finish();
}

TEST(TorchPickle, OfNothingIsAnEmptyDict) {
  EXPECT_EQ(Pickle().finish(), "\x80\x02}(u.");
}

TEST(TorchPickle, UsesTypedStoragesWhereTorchHasThem) {
  const struct {
    DType dtype;
    const char* storage;
  } cases[] = {{DType::kF64, "DoubleStorage"}, {DType::kF32, "FloatStorage"},       {DType::kF16, "HalfStorage"},
               {DType::kI64, "LongStorage"},   {DType::kBF16, "BFloat16Storage"},   {DType::kI32, "IntStorage"},
               {DType::kI16, "ShortStorage"},  {DType::kI8, "CharStorage"},         {DType::kU8, "ByteStorage"},
               {DType::kBool, "BoolStorage"},  {DType::kC64, "ComplexFloatStorage"}};
  for (const auto& c : cases) {
    // 40 bytes are 5, 10, 20 or 40 elements.
    const auto elements = static_cast<char>(40 / item_bytes(c.dtype));
    EXPECT_EQ(pickle_of(c.dtype, {4}, 40),
              "\x80\x02}(X\1\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\n"s + c.storage +
                  "\nX\1\0\0\0000X\3\0\0\0cpuK"s + elements +
                  "tQK\0K\4\x85K\1\x85\x89"
                  "ccollections\nOrderedDict\n)RtRu."s);
  }
}

TEST(TorchPickle, UsesUntypedStoragesInBytesForTheOtherTypes) {
  const struct {
    DType dtype;
    const char* name;
  } cases[] = {{DType::kF8E4M3, "float8_e4m3fn"},
               {DType::kF8E5M2, "float8_e5m2"},
               {DType::kU16, "uint16"},
               {DType::kU32, "uint32"},
               {DType::kU64, "uint64"},
               {DType::kF8E8M0, "float8_e8m0fnu"},
               {DType::kF8E4M3Fnuz, "float8_e4m3fnuz"},
               {DType::kF8E5M2Fnuz, "float8_e5m2fnuz"},
               {DType::kF4, "float4_e2m1fn_x2"},
               {DType::kC32, "complex32"}};
  for (const auto& c : cases) {
    EXPECT_EQ(pickle_of(c.dtype, {4}, 40),
              "\x80\x02}(X\1\0\0\0wctorch._utils\n_rebuild_tensor_v3\n((X\7\0\0\0storagectorch.storage\n"
              "UntypedStorage\nX\1\0\0\0000X\3\0\0\0cpuK(tQK\0K\4\x85K\1\x85\x89"
              "ccollections\nOrderedDict\n)Rctorch\n"s +
                  c.name + "\ntRu."s);
  }
}

TEST(TorchPickle, NumbersStoragesInOrderAndTakesUtf8NamesAsTheyAre) {
  Pickle pickle;
  for (int i = 0; i < 12; ++i) {
    ASSERT_TRUE(pickle.add("größe" + std::to_string(i), DType::kU8, {1}, 5));
  }
  const std::string bytes = pickle.finish();
  EXPECT_THAT(bytes, HasSubstr("X\x08\0\0\0größe0c"s));
  EXPECT_THAT(bytes, HasSubstr("X\x09\0\0\0größe11c"s));
  EXPECT_THAT(bytes, HasSubstr("X\2\0\0\00011X\3\0\0\0cpu"s));
}

TEST(TorchPickle, WritesIntegersInTheirShortestForm) {
  const struct {
    uint64_t extent;
    std::string bytes;
  } cases[] = {{0, "K\0"s},
               {255, "K\xff"s},
               {256, "M\0\1"s},
               {65535, "M\xff\xff"s},
               {65536, "J\0\0\1\0"s},
               {0x7FFFFFFF, "J\xff\xff\xff\x7f"s},
               {0x80000000, "\x8a\x08\0\0\0\x80\0\0\0\0"s},
               {0x7FFFFFFFFFFFFFFF, "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f"s}};
  for (const auto& c : cases) {
    EXPECT_THAT(pickle_of(DType::kU8, {c.extent}, 4), HasSubstr("tQK\0"s + c.bytes + "\x85K\1\x85\x89"s)) << c.extent;
  }
}

TEST(TorchPickle, WritesTuplesOfAnyRankWithContiguousStrides) {
  const struct {
    std::vector<uint64_t> shape;
    std::string bytes;
  } cases[] = {{{}, "))"s},
               {{5}, "K\5\x85K\1\x85"s},
               {{5, 3}, "K\5K\3\x86K\3K\1\x86"s},
               {{5, 3, 2}, "K\5K\3K\2\x87K\6K\2K\1\x87"s},
               {{5, 3, 2, 4}, "(K\5K\3K\2K\4t(K\30K\10K\4K\1t"s},
               {{0, 4}, "K\0K\4\x86K\4K\1\x86"s},
               {{4, 0}, "K\4K\0\x86K\1K\1\x86"s}};
  for (const auto& c : cases) {
    EXPECT_THAT(pickle_of(DType::kF32, c.shape, 0), HasSubstr("tQK\0"s + c.bytes + "\x89"s));
  }
}

TEST(TorchPickle, AddsNothingWhereTorchCouldNotHoldTheShape) {
  const std::vector<uint64_t> refused[] = {{uint64_t{1} << 63},
                                           {0, uint64_t{1} << 63},
                                           {0, uint64_t{1} << 40, uint64_t{1} << 40},
                                           {5, 1, uint64_t{1} << 63}};
  for (const auto& shape : refused) {
    Pickle pickle;
    EXPECT_FALSE(pickle.add("w", DType::kU8, shape, 0));
    EXPECT_EQ(pickle.finish(), Pickle().finish());
  }
  Pickle pickle;
  EXPECT_FALSE(pickle.add("w", DType::kU8, {}, uint64_t{1} << 63));
  EXPECT_TRUE(pickle.add("w", DType::kU8, {uint64_t{1} << 40, 0, uint64_t{1} << 40}, 0));
}

}  // namespace
}  // namespace qcache

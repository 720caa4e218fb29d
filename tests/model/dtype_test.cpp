#include "core/model/dtype.h"

#include <gtest/gtest.h>

namespace qcache {
namespace {

struct Row {
  DType dtype;
  int number;
  uint32_t bytes;
  const char* safetensors;
  const char* torch;
  bool wide;
  uint32_t elements = 1;
};

constexpr Row kRows[] = {
    {DType::kF64, 0, 8, "F64", "float64", true},
    {DType::kF32, 1, 4, "F32", "float32", true},
    {DType::kF16, 2, 2, "F16", "float16", true},
    {DType::kBF16, 3, 2, "BF16", "bfloat16", true},
    {DType::kI64, 4, 8, "I64", "int64", false},
    {DType::kI32, 5, 4, "I32", "int32", false},
    {DType::kI16, 6, 2, "I16", "int16", false},
    {DType::kI8, 7, 1, "I8", "int8", false},
    {DType::kU64, 8, 8, "U64", "uint64", false},
    {DType::kU32, 9, 4, "U32", "uint32", false},
    {DType::kU16, 10, 2, "U16", "uint16", false},
    {DType::kU8, 11, 1, "U8", "uint8", false},
    {DType::kBool, 12, 1, "BOOL", "bool", false},
    {DType::kF8E4M3, 13, 1, "F8_E4M3", "float8_e4m3fn", false},
    {DType::kF8E5M2, 14, 1, "F8_E5M2", "float8_e5m2", false},
    {DType::kC64, 15, 8, "C64", "complex64", false},
    {DType::kF8E8M0, 16, 1, "F8_E8M0", "float8_e8m0fnu", false},
    {DType::kF8E4M3Fnuz, 17, 1, "F8_E4M3FNUZ", "float8_e4m3fnuz", false},
    {DType::kF8E5M2Fnuz, 18, 1, "F8_E5M2FNUZ", "float8_e5m2fnuz", false},
    {DType::kF4, 19, 1, "F4", "float4_e2m1fn_x2", false, 2},
    {DType::kF6E2M3, 20, 3, "F6_E2M3", "", false, 4},
    {DType::kF6E3M2, 21, 3, "F6_E3M2", "", false, 4},
    {DType::kC128, 22, 16, "", "complex128", false},
    {DType::kC32, 23, 4, "", "complex32", false},
};

TEST(DType, NamesSizesAndRecordNumbers) {
  for (const Row& row : kRows) {
    SCOPED_TRACE(row.safetensors);
    EXPECT_EQ(static_cast<int>(row.dtype), row.number);  // written to cache records
    EXPECT_EQ(item_bytes(row.dtype), row.bytes);
    EXPECT_EQ(is_wide_float(row.dtype), row.wide);
    EXPECT_EQ(safetensors_name(row.dtype), row.safetensors);
    EXPECT_EQ(torch_name(row.dtype), row.torch);
    if (*row.safetensors != '\0') {
      EXPECT_EQ(dtype_from_safetensors(row.safetensors), row.dtype);
    }
    EXPECT_EQ(elements_per_item(row.dtype), row.elements);
    if (*row.torch != '\0') {
      EXPECT_EQ(dtype_from_torch(row.torch), row.dtype);
      EXPECT_EQ(dtype_from_torch("torch." + std::string(row.torch)), row.dtype);
    }
  }
}

TEST(DType, UnknownNamesAreNone) {
  for (const char* name : {"", "F5", "f32", "F8", "F32 ", "torch.float32", "C128"}) {
    EXPECT_EQ(dtype_from_safetensors(name), std::nullopt) << name;
  }
  for (const char* name : {"", "torch.", "auto", "F32", "complex256", "torch.torch.float32"}) {
    EXPECT_EQ(dtype_from_torch(name), std::nullopt) << name;
  }
}

}  // namespace
}  // namespace qcache

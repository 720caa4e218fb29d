#include "core/model/dtype.h"

#include <array>

namespace qcache {
namespace {

struct DTypeRow {
  uint32_t bytes;
  std::string_view safetensors;
  std::string_view torch;
  uint32_t elements = 1;
};

// Indexed by DType.
constexpr std::array<DTypeRow, 24> kRows = {{
    {8, "F64", "float64"},
    {4, "F32", "float32"},
    {2, "F16", "float16"},
    {2, "BF16", "bfloat16"},
    {8, "I64", "int64"},
    {4, "I32", "int32"},
    {2, "I16", "int16"},
    {1, "I8", "int8"},
    {8, "U64", "uint64"},
    {4, "U32", "uint32"},
    {2, "U16", "uint16"},
    {1, "U8", "uint8"},
    {1, "BOOL", "bool"},
    {1, "F8_E4M3", "float8_e4m3fn"},
    {1, "F8_E5M2", "float8_e5m2"},
    {8, "C64", "complex64"},
    {1, "F8_E8M0", "float8_e8m0fnu"},
    {1, "F8_E4M3FNUZ", "float8_e4m3fnuz"},
    {1, "F8_E5M2FNUZ", "float8_e5m2fnuz"},
    {1, "F4", "float4_e2m1fn_x2", 2},
    {3, "F6_E2M3", "", 4},
    {3, "F6_E3M2", "", 4},
    {16, "", "complex128"},
    {4, "", "complex32"},
}};

const DTypeRow& row(DType dtype) {
  return kRows.at(static_cast<size_t>(dtype));
}

std::optional<DType> find(std::string_view DTypeRow::*column, std::string_view name) {
  for (size_t i = 0; i < kRows.size(); ++i) {
    if (!name.empty() && kRows[i].*column == name) {
      return static_cast<DType>(i);
    }
  }
  return std::nullopt;
}

}  // namespace

uint32_t item_bytes(DType dtype) {
  return row(dtype).bytes;
}

uint32_t elements_per_item(DType dtype) {
  return row(dtype).elements;
}

bool is_wide_float(DType dtype) {
  return dtype == DType::kF64 || dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

std::string_view safetensors_name(DType dtype) {
  return row(dtype).safetensors;
}

std::optional<DType> dtype_from_safetensors(std::string_view name) {
  return find(&DTypeRow::safetensors, name);
}

std::string_view torch_name(DType dtype) {
  return row(dtype).torch;
}

std::optional<DType> dtype_from_torch(std::string_view name) {
  constexpr std::string_view kModule = "torch.";
  if (name.starts_with(kModule)) {
    name.remove_prefix(kModule.size());
  }
  return find(&DTypeRow::torch, name);
}

}  // namespace qcache

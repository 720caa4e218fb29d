#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace qcache {

/// Element types that qcache can store. All are little-endian. The numbers are written to cache records:
/// append, never renumber.
enum class DType : uint8_t {
  kF64 = 0,
  kF32 = 1,
  kF16 = 2,
  kBF16 = 3,
  kI64 = 4,
  kI32 = 5,
  kI16 = 6,
  kI8 = 7,
  kU64 = 8,
  kU32 = 9,
  kU16 = 10,
  kU8 = 11,
  kBool = 12,
  kF8E4M3 = 13,  ///< float8_e4m3fn
  kF8E5M2 = 14,
  kC64 = 15,  ///< two F32
  kF8E8M0 = 16,
  kF8E4M3Fnuz = 17,
  kF8E5M2Fnuz = 18,
  kF4 = 19,      ///< two in an item
  kF6E2M3 = 20,  ///< four in an item, as kF6E3M2
  kF6E3M2 = 21,
  kC128 = 22,
  kC32 = 23,
};

/// Bytes of one item: of one element, but where elements are no whole bytes the least number of them that are. Shapes
/// count items, as torch does (float4_e2m1fn_x2); only safetensors headers count elements.
[[nodiscard]] uint32_t item_bytes(DType dtype);

/// Elements in one item along the last dimension: 1, but for the types of less than a byte.
[[nodiscard]] uint32_t elements_per_item(DType dtype);

/// F64, F32, F16 or BF16: types that a weight to be quantized may have.
[[nodiscard]] bool is_wide_float(DType dtype);

/// "BF16", as safetensors headers write it; empty where they cannot.
[[nodiscard]] std::string_view safetensors_name(DType dtype);

/// The type of a safetensors name; none for names this build does not know.
[[nodiscard]] std::optional<DType> dtype_from_safetensors(std::string_view name);

/// "bfloat16": torch's name without "torch."; empty where torch has no such type.
[[nodiscard]] std::string_view torch_name(DType dtype);

/// The type of a torch name such as "bfloat16" or "torch.bfloat16"; none where unknown.
[[nodiscard]] std::optional<DType> dtype_from_torch(std::string_view name);

}  // namespace qcache

#pragma once

#include <array>
#include <string_view>

#include "core/quant/kernels.h"
#include "core/quant/quantizer.h"
#include "core/quant/reference.h"

namespace qcache {

/// A kernel of a row scheme, its reference, and how much it stores for one row.
struct RowKernel {
  std::string_view name;
  EncodeFunction kernel;
  EncodeFunction reference;
  bool blocks;  ///< nf4: two codes per byte, one F32 per block

  [[nodiscard]] uint64_t code_bytes(uint64_t elements) const { return blocks ? elements / 2 : elements; }
  [[nodiscard]] uint64_t scale_bytes(DType source, uint64_t elements) const {
    return blocks ? elements / kNf4BlockElements * sizeof(float) : item_bytes(scale_dtype(source));
  }
};

inline constexpr std::array kRowKernels = {
    RowKernel{"int8", kernels::encode_int8, reference::encode_int8, false},
    RowKernel{"fp8", kernels::encode_fp8, reference::encode_fp8, false},
    RowKernel{"qfloat8", kernels::encode_qfloat8, reference::encode_qfloat8, false},
    RowKernel{"nf4", kernels::encode_nf4, reference::encode_nf4, true},
};

struct CastKernel {
  DType target;
  EncodeFunction kernel;
  EncodeFunction reference;
};

inline constexpr std::array kCastKernels = {
    CastKernel{DType::kBF16, kernels::cast_to_bf16, reference::cast_to_bf16},
    CastKernel{DType::kF16, kernels::cast_to_fp16, reference::cast_to_fp16},
    CastKernel{DType::kF32, kernels::cast_to_fp32, reference::cast_to_fp32},
};

inline constexpr std::array kWideFloats = {DType::kBF16, DType::kF16, DType::kF32, DType::kF64};

}  // namespace qcache

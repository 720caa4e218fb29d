#pragma once

#include <array>
#include <string_view>

#include "core/quant/kernels.h"
#include "core/quant/quantizer.h"
#include "core/quant/reference.h"

namespace qcache {

enum class ScaleKind { kOwnType, kF32, kByte };

/// A kernel of a scheme with one scale per row or group, its reference, and how much it stores for one row.
struct RowKernel {
  std::string_view name;  ///< of the scheme
  EncodeFunction kernel;
  EncodeFunction reference;
  ScaleKind scale = ScaleKind::kOwnType;
  bool nibbles = false;
  uint64_t group = 0;           ///< elements per scale; 0: the row
  bool group_argument = false;  ///< whether EncodeArgs tells the kernel

  /// Rows are multiples of this.
  [[nodiscard]] uint64_t row_multiple() const { return group == 0 ? 1 : group; }
  [[nodiscard]] uint64_t code_bytes(uint64_t elements) const { return nibbles ? elements / 2 : elements; }
  [[nodiscard]] uint64_t scale_bytes(DType source, uint64_t elements) const {
    const uint64_t bytes = scale == ScaleKind::kByte  ? 1
                           : scale == ScaleKind::kF32 ? sizeof(float)
                                                      : item_bytes(scale_dtype(source));
    return bytes * (group == 0 ? 1 : elements / group);
  }

  /// Runs one of the two on whole rows of `columns` elements.
  void run(EncodeFunction function, DType dtype, uint64_t columns, std::span<const std::byte> source,
           std::span<std::byte> codes, std::span<std::byte> scales) const {
    Survey survey;
    reference::survey_amax(dtype, source, survey);
    const std::array<std::span<std::byte>, 2> stored = {codes, scales};
    function({.source_dtype = dtype,
              .row_elements = columns,
              .group_elements = group_argument ? group : 0,
              .source = source,
              .stored = stored,
              .survey = &survey});
  }
};

inline constexpr std::array kRowKernels = {
    RowKernel{"int8", kernels::encode_int8, reference::encode_int8},
    RowKernel{"fp8", kernels::encode_fp8, reference::encode_fp8},
    RowKernel{"qfloat8", kernels::encode_qfloat8, reference::encode_qfloat8},
    RowKernel{"qint8", kernels::encode_qint8, reference::encode_qint8},
    RowKernel{"int8-bnb", kernels::encode_llm_int8, reference::encode_llm_int8, ScaleKind::kF32},
    RowKernel{"nf4", kernels::encode_nf4, reference::encode_nf4, ScaleKind::kF32, true, 64},
    RowKernel{"fp4", kernels::encode_fp4, reference::encode_fp4, ScaleKind::kF32, true, 64},
    RowKernel{"w8a16", kernels::encode_w8a16, reference::encode_w8a16, ScaleKind::kOwnType, false, 32, true},
    RowKernel{"w8a16", kernels::encode_w8a16, reference::encode_w8a16, ScaleKind::kOwnType, false, 128, true},
    RowKernel{"int4", kernels::encode_int4, reference::encode_int4, ScaleKind::kOwnType, true, 32, true},
    RowKernel{"int4", kernels::encode_int4, reference::encode_int4, ScaleKind::kOwnType, true, 64, true},
    RowKernel{"int4", kernels::encode_int4, reference::encode_int4, ScaleKind::kOwnType, true, 128, true},
    RowKernel{"mxfp4", kernels::encode_mxfp4, reference::encode_mxfp4, ScaleKind::kByte, true, 32, true},
    RowKernel{"nvfp4", kernels::encode_nvfp4, reference::encode_nvfp4, ScaleKind::kByte, true, 16, true},
};

/// Schemes whose units are no rows; their encodings say what they store.
struct UnitKernel {
  std::string_view name;
  EncodeFunction reference;
};
inline constexpr std::array kUnitKernels = {
    UnitKernel{"fp8-block", reference::encode_fp8_block},
    UnitKernel{"nf4-dq", reference::encode_nf4_dq},
    UnitKernel{"qint4", reference::encode_qint4},
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

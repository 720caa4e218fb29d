#pragma once

#include <cstddef>
#include <cstdint>

#include "core/quant/encoding.h"

/// The bytes of every scheme, in plain C++ that can be checked against docs/SCHEMES.md line by line. SIMD
/// kernels must equal it for every input, and use it for what is rare: F64 sources, and rows or blocks with
/// NaN or infinities. Pure; any thread.
namespace qcache::reference {

/// Encodes one row of `count` elements: `codes` and `scales` are where the row's part of stored tensors 0 and
/// 1 begin.
using RowFunction = void (*)(DType source, const std::byte* row, uint64_t count, std::byte* codes, std::byte* scales);

void int8_row(DType source, const std::byte* row, uint64_t count, std::byte* codes, std::byte* scale);
void fp8_row(DType source, const std::byte* row, uint64_t count, std::byte* codes, std::byte* scale);
void qfloat8_row(DType source, const std::byte* row, uint64_t count, std::byte* codes, std::byte* scale);
/// `count` is a multiple of 64; one F32 absmax per block.
void nf4_row(DType source, const std::byte* row, uint64_t count, std::byte* codes, std::byte* absmax);

// The same as EncodeFunctions.
void encode_int8(const EncodeArgs& args);
void encode_fp8(const EncodeArgs& args);
void encode_qfloat8(const EncodeArgs& args);
void encode_nf4(const EncodeArgs& args);
void cast_to_bf16(const EncodeArgs& args);
void cast_to_fp16(const EncodeArgs& args);
void cast_to_fp32(const EncodeArgs& args);

}  // namespace qcache::reference

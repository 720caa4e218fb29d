#pragma once

#include <cstddef>
#include <cstdint>

#include "core/quant/encoding.h"

/// The bytes of every scheme, in plain C++ that can be checked against docs/SCHEMES.md line by line. SIMD
/// kernels must equal it for every input, and use it for what is rare: F64 sources, and rows or blocks with
/// NaN or infinities. Pure; any thread.
namespace qcache::reference {

/// Encodes one row (or group) of `count` elements: `codes` and `scales` are where its part of stored tensors 0 and
/// 1 begin.
using RowFunction = void (*)(DType source, const std::byte* row, uint64_t count, std::byte* codes, std::byte* scales);

// reference_bytes.cpp: one byte per element
void int8_row(DType source, const std::byte* row, uint64_t count, std::byte* codes, std::byte* scale);
void w8a16_row(DType source, const std::byte* row, uint64_t count, std::byte* codes, std::byte* scale);
void fp8_row(DType source, const std::byte* row, uint64_t count, std::byte* codes, std::byte* scale);
void qfloat8_row(DType source, const std::byte* row, uint64_t count, std::byte* codes, std::byte* scale);
void qint8_row(DType source, const std::byte* row, uint64_t count, std::byte* codes, std::byte* scale);
void llm_int8_row(DType source, const std::byte* row, uint64_t count, std::byte* codes, std::byte* scale);
/// One square of fp8-block; `stride` is the bytes from one of its rows to the next.
void fp8_square(DType source, const std::byte* first, uint64_t stride, std::byte* codes, uint64_t codes_stride,
                std::byte* scale);

// reference_nibbles.cpp: two codes per byte; `count` is even, and a multiple of 64 where blocks are
void int4_row(DType source, const std::byte* row, uint64_t count, std::byte* codes, std::byte* scale);
void mxfp4_row(DType source, const std::byte* row, uint64_t count, std::byte* codes, std::byte* scale);
void nvfp4_group(DType source, const std::byte* group, float global_scale, std::byte* codes, std::byte* scale);
void nf4_row(DType source, const std::byte* row, uint64_t count, std::byte* codes, std::byte* absmax);
void fp4_row(DType source, const std::byte* row, uint64_t count, std::byte* codes, std::byte* absmax);
/// Two qint4 groups whose codes share bytes; `second` is null where there is none.
void qint4_pair(DType source, const std::byte* first, const std::byte* second, uint64_t count, std::byte* codes);
/// The scale and shift of one qint4 group.
void qint4_range_of(DType source, const std::byte* group, uint64_t count, std::byte* scale, std::byte* shift);
/// The codes and the nested absmax of up to kNestedBlocks absmaxes (nf4-dq).
void nested_absmax(const float* absmax, uint64_t count, float offset, std::byte* codes, std::byte* nested);

// The same as EncodeFunctions.
void encode_int8(const EncodeArgs& args);
void encode_w8a16(const EncodeArgs& args);
void encode_fp8(const EncodeArgs& args);
void encode_qfloat8(const EncodeArgs& args);
void encode_qint8(const EncodeArgs& args);
void encode_llm_int8(const EncodeArgs& args);
void encode_fp8_block(const EncodeArgs& args);
void encode_int4(const EncodeArgs& args);
void encode_mxfp4(const EncodeArgs& args);
void encode_nvfp4(const EncodeArgs& args);
void encode_nf4(const EncodeArgs& args);
void encode_fp4(const EncodeArgs& args);
void encode_nf4_dq(const EncodeArgs& args);
void encode_qint4(const EncodeArgs& args);

// reference.cpp
void cast_to_bf16(const EncodeArgs& args);
void cast_to_fp16(const EncodeArgs& args);
void cast_to_fp32(const EncodeArgs& args);
void survey_amax(DType source, std::span<const std::byte> bytes, Survey& survey);
void survey_absmax_mean(DType source, std::span<const std::byte> bytes, Survey& survey);

}  // namespace qcache::reference

#pragma once

#include "core/quant/encoding.h"

/// DecodeFunctions, one for each way of storing codes. Plain loops: they serve measurements and residuals, not reads.
namespace qcache::decode {

/// An I8 code times the scale of its row: int8, qint8.
void int8(const DecodeArgs& args);
/// (U8 code - 128) times the scale of its group: w8a16.
void w8a16(const DecodeArgs& args);
/// An E4M3 code times the scale of its row: fp8, qfloat8.
void e4m3(const DecodeArgs& args);
/// An I8 code times SCB / 127.
void llm_int8(const DecodeArgs& args);
void fp8_block(const DecodeArgs& args);
void int4(const DecodeArgs& args);
void mxfp4(const DecodeArgs& args);
void nvfp4(const DecodeArgs& args);
void nf4(const DecodeArgs& args);
void fp4(const DecodeArgs& args);
void nf4_dq(const DecodeArgs& args);
void qint4(const DecodeArgs& args);

}  // namespace qcache::decode

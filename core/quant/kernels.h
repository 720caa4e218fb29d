#pragma once

#include "core/quant/encoding.h"

/// EncodeFunctions that run on the best instruction set of this machine. Their bytes equal those of
/// core/quant/reference.h for every input on every instruction set.
///
/// They rely on the default floating-point environment: round to nearest, denormals neither flushed nor
/// taken for zero.
namespace qcache::kernels {

void encode_int8(const EncodeArgs& args);
void encode_fp8(const EncodeArgs& args);
void encode_qfloat8(const EncodeArgs& args);
void encode_nf4(const EncodeArgs& args);
void cast_to_bf16(const EncodeArgs& args);
void cast_to_fp16(const EncodeArgs& args);
void cast_to_fp32(const EncodeArgs& args);

/// The unit's bytes unchanged.
void copy(const EncodeArgs& args);

}  // namespace qcache::kernels

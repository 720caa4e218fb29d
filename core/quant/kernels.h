#pragma once

#include "core/quant/encoding.h"

/// EncodeFunctions that run on the best instruction set of this machine. Their bytes equal those of
/// core/quant/reference.h for every input on every instruction set.
///
/// They rely on the default floating-point environment: round to nearest, denormals neither flushed nor
/// taken for zero.
namespace qcache::kernels {

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
void cast_to_bf16(const EncodeArgs& args);
void cast_to_fp16(const EncodeArgs& args);
void cast_to_fp32(const EncodeArgs& args);

// SurveyFunctions.
void survey_amax(DType source_dtype, std::span<const std::byte> source, Survey& survey);
/// The mean of the absmaxes of nf4's blocks.
void survey_absmax_mean(DType source_dtype, std::span<const std::byte> source, Survey& survey);

/// The unit's bytes unchanged.
void copy(const EncodeArgs& args);

}  // namespace qcache::kernels

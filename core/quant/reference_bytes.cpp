#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/quant/quantizer.h"
#include "core/quant/reference.h"
#include "core/quant/rows.h"
#include "core/quant/units.h"
#include "core/quant/values.h"

namespace qcache::reference {
namespace {

std::byte int8_byte(float steps) {
  return static_cast<std::byte>(static_cast<int8_t>(steps));
}

std::byte int8_code(float value, float scale) {
  if (std::isnan(value)) {
    return std::byte{0};
  }
  return int8_byte(std::nearbyintf(std::clamp(value / scale, -128.0F, 127.0F)));
}

/// What stands for a value in a row whose scale is 0: 0, and the extremes for infinities.
std::byte int8_code_without_scale(float value) {
  return int8_byte(std::isinf(value) ? (value < 0 ? -128.0F : 127.0F) : 0.0F);
}

void encode_rows(const EncodeArgs& args, RowFunction row_function) {
  const Rows rows(args);
  rows.for_each([&](const std::byte* source, std::byte* codes, std::byte* scales) {
    row_function(args.source_dtype, source, rows.elements, codes, scales);
  });
}

}  // namespace

void int8_row(DType source, const std::byte* row, uint64_t count, std::byte* codes, std::byte* scale_out) {
  const Values values(source, row, count);
  const float scale = int8_scale(scale_dtype(source), values.finite_amax());
  store_from_float(scale_dtype(source), scale, scale_out);
  for (uint64_t i = 0; i < count; ++i) {
    codes[i] = int8_code(values[i], scale);
  }
}

void w8a16_row(DType source, const std::byte* row, uint64_t count, std::byte* codes, std::byte* scale_out) {
  int8_row(source, row, count, codes, scale_out);
  for (uint64_t i = 0; i < count; ++i) {
    codes[i] ^= std::byte{0x80};  // + 128
  }
}

void fp8_row(DType source, const std::byte* row, uint64_t count, std::byte* codes, std::byte* scale_out) {
  const Values values(source, row, count);
  const float scale = fp8_scale(scale_dtype(source), values.finite_amax());
  store_from_float(scale_dtype(source), scale, scale_out);
  for (uint64_t i = 0; i < count; ++i) {
    codes[i] = std::byte{float_to_e4m3(values[i] / scale)};
  }
}

void qfloat8_row(DType source, const std::byte* row, uint64_t count, std::byte* codes, std::byte* scale_out) {
  const Values values(source, row, count);
  const DType arithmetic = scale_dtype(source);
  const float scale = qfloat8_scale(arithmetic, values.finite_amax());
  store_from_float(arithmetic, scale == 0 ? 1.0F : scale, scale_out);
  for (uint64_t i = 0; i < count; ++i) {
    const float value = values[i];
    if (scale == 0) {
      codes[i] = std::isfinite(value) ? std::byte{0} : std::byte{float_to_e4m3(value)};
    } else {
      codes[i] = std::byte{float_to_e4m3(round_to(arithmetic, value / scale))};
    }
  }
}

void qint8_row(DType source, const std::byte* row, uint64_t count, std::byte* codes, std::byte* scale_out) {
  const Values values(source, row, count);
  const DType arithmetic = scale_dtype(source);
  const float scale = qint8_scale(arithmetic, values.finite_amax());
  store_from_float(arithmetic, scale == 0 ? 1.0F : scale, scale_out);
  for (uint64_t i = 0; i < count; ++i) {
    const float value = values[i];
    codes[i] = scale == 0 ? int8_code_without_scale(value) : int8_code(round_to(arithmetic, value / scale), 1.0F);
  }
}

void llm_int8_row(DType source, const std::byte* row, uint64_t count, std::byte* codes, std::byte* scale_out) {
  const Values values(source, row, count);
  const float scale = llm_int8_scale(values.finite_amax());
  store_from_float(DType::kF32, scale, scale_out);
  for (uint64_t i = 0; i < count; ++i) {
    const float value = values[i];
    if (std::isinf(value)) {
      codes[i] = int8_byte(value < 0 ? -127.0F : 127.0F);
    } else if (std::isnan(value) || scale == 0) {
      codes[i] = std::byte{0};
    } else {
      codes[i] = int8_byte(std::nearbyintf(llm_int8_value(value) * llm_int8_multiplier(scale)));
    }
  }
}

void fp8_square(DType source, const std::byte* first, uint64_t stride, std::byte* codes, uint64_t codes_stride,
                std::byte* scale_out) {
  float amax = 0;
  for (uint64_t row = 0; row < kFp8BlockSide; ++row) {
    amax = std::max(amax, Values(source, first + row * stride, kFp8BlockSide).finite_amax());
  }
  const float multiplier = fp8_block_multiplier(amax);
  store_from_float(DType::kF32, 1.0F / multiplier, scale_out);
  for (uint64_t row = 0; row < kFp8BlockSide; ++row) {
    const Values values(source, first + row * stride, kFp8BlockSide);
    for (uint64_t i = 0; i < kFp8BlockSide; ++i) {
      codes[row * codes_stride + i] = std::byte{float_to_e4m3(values[i] * multiplier)};
    }
  }
}

void encode_int8(const EncodeArgs& args) {
  encode_rows(args, int8_row);
}
void encode_w8a16(const EncodeArgs& args) {
  encode_rows(args, w8a16_row);
}
void encode_fp8(const EncodeArgs& args) {
  encode_rows(args, fp8_row);
}
void encode_qfloat8(const EncodeArgs& args) {
  encode_rows(args, qfloat8_row);
}
void encode_qint8(const EncodeArgs& args) {
  encode_rows(args, qint8_row);
}
void encode_llm_int8(const EncodeArgs& args) {
  encode_rows(args, llm_int8_row);
}

void encode_fp8_block(const EncodeArgs& args) {
  for_each_fp8_square(
      args, [&](const std::byte* first, uint64_t stride, std::byte* codes, uint64_t codes_stride, std::byte* scale) {
        fp8_square(args.source_dtype, first, stride, codes, codes_stride, scale);
      });
}

}  // namespace qcache::reference

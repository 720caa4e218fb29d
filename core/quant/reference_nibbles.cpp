#include <algorithm>
#include <array>
#include <cmath>

#include "core/quant/quantizer.h"
#include "core/quant/reference.h"
#include "core/quant/rows.h"
#include "core/quant/units.h"
#include "core/quant/values.h"

namespace qcache::reference {
namespace {

std::byte joined(unsigned low, unsigned high) {
  return static_cast<std::byte>(low | (high << 4));
}

/// Codes in pairs, the first of each pair in the low half of its byte.
template <typename Code>
void first_low(const Values& values, std::byte* codes, const Code& code) {
  for (uint64_t i = 0; i < values.count(); i += 2) {
    codes[i / 2] = joined(code(values[i]), code(values[i + 1]));
  }
}

/// The first of each pair in the high half of its byte.
template <typename Code>
void first_high(const Values& values, std::byte* codes, const Code& code) {
  for (uint64_t i = 0; i < values.count(); i += 2) {
    codes[i / 2] = joined(code(values[i + 1]), code(values[i]));
  }
}

unsigned nf4_code(float value, float multiplier) {
  if (std::isnan(value)) {
    return kNf4Zero;
  }
  const float x = value * multiplier;
  return static_cast<unsigned>(
      std::count_if(kNf4Thresholds.begin(), kNf4Thresholds.end(), [x](float t) { return x > t; }));
}

unsigned fp4_code(float value, float multiplier) {
  if (std::isnan(value)) {
    return 0;
  }
  const float x = value * multiplier;
  const auto rank =
      std::count_if(kFp4Thresholds.begin(), kFp4Thresholds.end(), [x](float t) { return std::fabs(x) > t; });
  return (x < 0 ? 8U : 0U) | kFp4Ascending.at(static_cast<size_t>(rank));
}

template <typename Code>
void bnb_row(const Values& values, std::byte* codes, std::byte* absmax_out, const Code& code) {
  for (uint64_t first = 0; first < values.count(); first += kNf4BlockElements) {
    const Values block = values.slice(first, kNf4BlockElements);
    const float absmax = block.finite_amax();
    store_from_float(DType::kF32, absmax, absmax_out + first / kNf4BlockElements * sizeof(float));
    const float multiplier = nf4_multiplier(absmax);
    first_high(block, codes + first / 2, [&](float value) { return code(value, multiplier); });
  }
}

void encode_rows(const EncodeArgs& args, RowFunction row_function) {
  const Rows rows(args);
  rows.for_each([&](const std::byte* source, std::byte* codes, std::byte* scales) {
    row_function(args.source_dtype, source, rows.elements, codes, scales);
  });
}

}  // namespace

void int4_row(DType source, const std::byte* row, uint64_t count, std::byte* codes, std::byte* scale_out) {
  const Values values(source, row, count);
  const float scale = int4_scale(scale_dtype(source), values.finite_amax());
  store_from_float(scale_dtype(source), scale, scale_out);
  first_low(values, codes, [&](float value) {
    const float steps = std::isnan(value) ? 0.0F : std::nearbyintf(std::clamp(value / scale, -8.0F, 7.0F));
    return static_cast<unsigned>(static_cast<int>(steps) + 8);
  });
}

void mxfp4_row(DType source, const std::byte* row, uint64_t count, std::byte* codes, std::byte* scale_out) {
  const Values values(source, row, count);
  const uint8_t exponent = mxfp4_exponent(values.finite_amax());
  *scale_out = std::byte{exponent};
  const float multiplier = mxfp4_multiplier(exponent);
  first_low(values, codes, [&](float value) { return unsigned{float_to_e2m1(value * multiplier)}; });
}

void nvfp4_group(DType source, const std::byte* group, float global_scale, std::byte* codes, std::byte* scale_out) {
  const Values values(source, group, kNvfp4GroupElements);
  const uint8_t local = nvfp4_group_scale(global_scale, values.finite_amax());
  *scale_out = std::byte{local};
  const float scale = e4m3_to_float(local) / global_scale;
  first_low(values, codes, [&](float value) { return unsigned{float_to_e2m1(value / scale)}; });
}

void nf4_row(DType source, const std::byte* row, uint64_t count, std::byte* codes, std::byte* absmax_out) {
  bnb_row(Values(source, row, count), codes, absmax_out, nf4_code);
}

void fp4_row(DType source, const std::byte* row, uint64_t count, std::byte* codes, std::byte* absmax_out) {
  bnb_row(Values(source, row, count), codes, absmax_out, fp4_code);
}

void nested_absmax(const float* absmax, uint64_t count, float offset, std::byte* codes, std::byte* nested) {
  float largest = 0;
  for (uint64_t i = 0; i < count; ++i) {
    largest = std::max(largest, std::fabs(absmax[i] - offset));
  }
  store_from_float(DType::kF32, largest, nested);
  const float multiplier = nf4_multiplier(largest);
  for (uint64_t i = 0; i < count; ++i) {
    codes[i] = std::byte{dynamic_code((absmax[i] - offset) * multiplier)};
  }
}

namespace {

Qint4Range range_of(const Values& values) {
  float low = INFINITY;
  float high = -INFINITY;
  for (uint64_t i = 0; i < values.count(); ++i) {
    const float value = values[i];
    if (std::isfinite(value)) {
      low = std::fmin(low, value);
      high = std::fmax(high, value);
    }
  }
  return low > high ? Qint4Range{} : qint4_range(scale_dtype(values.dtype()), low, high);
}

unsigned code_in(const Values& values, uint64_t index, const Qint4Range& range) {
  const float value = values[index];
  if (std::isinf(value)) {
    return value < 0 ? 0 : 15;
  }
  return std::isnan(value) || range.scale == 0 ? 0 : qint4_code(scale_dtype(values.dtype()), value, range);
}

}  // namespace

void qint4_pair(DType source, const std::byte* first, const std::byte* second, uint64_t count, std::byte* codes) {
  const Values low(source, first, count);
  const Values high(source, second != nullptr ? second : first, count);
  const Qint4Range low_range = range_of(low);
  const Qint4Range high_range = range_of(high);
  for (uint64_t i = 0; i < count; ++i) {
    codes[i] = joined(code_in(low, i, low_range), second != nullptr ? code_in(high, i, high_range) : 0);
  }
}

void qint4_range_of(DType source, const std::byte* group, uint64_t count, std::byte* scale, std::byte* shift) {
  const Qint4Range range = range_of(Values(source, group, count));
  store_from_float(scale_dtype(source), range.scale == 0 ? 1.0F : range.scale, scale);
  store_from_float(scale_dtype(source), range.shift, shift);
}

void encode_int4(const EncodeArgs& args) {
  encode_rows(args, int4_row);
}
void encode_mxfp4(const EncodeArgs& args) {
  encode_rows(args, mxfp4_row);
}
void encode_nf4(const EncodeArgs& args) {
  encode_rows(args, nf4_row);
}
void encode_fp4(const EncodeArgs& args) {
  encode_rows(args, fp4_row);
}

void encode_nvfp4(const EncodeArgs& args) {
  const float global_scale = nvfp4_global_scale(args.survey->amax);
  Rows(args).for_each([&](const std::byte* source, std::byte* codes, std::byte* scale) {
    nvfp4_group(args.source_dtype, source, global_scale, codes, scale);
  });
}

void encode_nf4_dq(const EncodeArgs& args) {
  for_each_nested(args, [&](const std::byte* source, uint64_t elements, std::byte* codes, std::byte* absmax_codes,
                            std::byte* nested) {
    std::array<float, kNestedBlocks> absmax{};
    nf4_row(args.source_dtype, source, elements, codes, reinterpret_cast<std::byte*>(absmax.data()));
    nested_absmax(absmax.data(), elements / kNf4BlockElements, args.survey->mean(), absmax_codes, nested);
  });
}

void encode_qint4(const EncodeArgs& args) {
  for_each_qint4_pair(args, [&](const std::byte* first, const std::byte* second, std::byte* codes, std::byte* scales,
                                std::byte* shifts, uint64_t to_second) {
    qint4_pair(args.source_dtype, first, second, args.group_elements, codes);
    qint4_range_of(args.source_dtype, first, args.group_elements, scales, shifts);
    if (second != nullptr) {
      qint4_range_of(args.source_dtype, second, args.group_elements, scales + to_second, shifts + to_second);
    }
  });
}

}  // namespace qcache::reference

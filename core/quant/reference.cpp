#include "core/quant/reference.h"

#include <algorithm>
#include <cmath>

#include "core/quant/number_formats.h"
#include "core/quant/quantizer.h"
#include "core/quant/rows.h"

namespace qcache::reference {
namespace {

/// The values of a row, read one by one as fp32.
class Values {
 public:
  Values(DType dtype, const std::byte* data, uint64_t count)
      : dtype_(dtype), data_(data), count_(count), stride_(item_bytes(dtype)) {}

  [[nodiscard]] uint64_t count() const { return count_; }
  [[nodiscard]] float operator[](uint64_t index) const { return load_as_float(dtype_, data_ + index * stride_); }
  [[nodiscard]] Values slice(uint64_t first, uint64_t count) const { return {dtype_, data_ + first * stride_, count}; }
  /// Largest magnitude among the finite values; 0 where there is none.
  [[nodiscard]] float finite_amax() const {
    float amax = 0;
    for (uint64_t i = 0; i < count_; ++i) {
      const float magnitude = std::fabs((*this)[i]);
      if (std::isfinite(magnitude) && magnitude > amax) {
        amax = magnitude;
      }
    }
    return amax;
  }

 private:
  DType dtype_;
  const std::byte* data_;
  uint64_t count_;
  uint64_t stride_;
};

uint8_t int8_code(float value, float scale) {
  if (std::isnan(value)) {
    return 0;
  }
  const float clamped = std::clamp(value / scale, -128.0F, 127.0F);
  return static_cast<uint8_t>(static_cast<int8_t>(std::nearbyintf(clamped)));
}

uint8_t nf4_code(float value, float multiplier) {
  if (std::isnan(value)) {
    return kNf4Zero;
  }
  const float x = value * multiplier;
  return static_cast<uint8_t>(
      std::count_if(kNf4Thresholds.begin(), kNf4Thresholds.end(), [x](float t) { return x > t; }));
}

void encode_rows(const EncodeArgs& args, RowFunction row_function) {
  const Rows rows(args);
  rows.for_each([&](const std::byte* source, std::byte* codes, std::byte* scales) {
    row_function(args.source_dtype, source, rows.elements, codes, scales);
  });
}

void cast(const EncodeArgs& args, DType target) {
  const Values values(args.source_dtype, args.source.data(), args.source.size() / item_bytes(args.source_dtype));
  const uint64_t stride = item_bytes(target);
  for (uint64_t i = 0; i < values.count(); ++i) {
    store_from_float(target, values[i], args.stored[0].data() + i * stride);
  }
}

}  // namespace

void int8_row(DType source, const std::byte* row, uint64_t count, std::byte* codes, std::byte* scale_out) {
  const Values values(source, row, count);
  const float scale = int8_scale(scale_dtype(source), values.finite_amax());
  store_from_float(scale_dtype(source), scale, scale_out);
  for (uint64_t i = 0; i < count; ++i) {
    codes[i] = std::byte{int8_code(values[i], scale)};
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

void nf4_row(DType source, const std::byte* row, uint64_t count, std::byte* codes, std::byte* absmax_out) {
  const Values values(source, row, count);
  for (uint64_t first = 0; first < count; first += kNf4BlockElements) {
    const Values block = values.slice(first, kNf4BlockElements);
    const float absmax = block.finite_amax();
    store_from_float(DType::kF32, absmax, absmax_out + first / kNf4BlockElements * sizeof(float));
    const float multiplier = nf4_multiplier(absmax);
    for (uint64_t i = 0; i < kNf4BlockElements; i += 2) {
      const auto high = static_cast<unsigned>(nf4_code(block[i], multiplier));
      const auto low = static_cast<unsigned>(nf4_code(block[i + 1], multiplier));
      codes[(first + i) / 2] = static_cast<std::byte>((high << 4) | low);
    }
  }
}

void encode_int8(const EncodeArgs& args) {
  encode_rows(args, int8_row);
}
void encode_fp8(const EncodeArgs& args) {
  encode_rows(args, fp8_row);
}
void encode_qfloat8(const EncodeArgs& args) {
  encode_rows(args, qfloat8_row);
}
void encode_nf4(const EncodeArgs& args) {
  encode_rows(args, nf4_row);
}
void cast_to_bf16(const EncodeArgs& args) {
  cast(args, DType::kBF16);
}
void cast_to_fp16(const EncodeArgs& args) {
  cast(args, DType::kF16);
}
void cast_to_fp32(const EncodeArgs& args) {
  cast(args, DType::kF32);
}

}  // namespace qcache::reference

// int8, w8a16, fp8, qfloat8, qint8 and LLM.int8: one scale per row or group, one byte per element.
#include "core/quant/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/quant/row_kernels.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "core/quant/codes-inl.h"
#include "core/quant/kernels.h"
#include "core/quant/quantizer.h"
#include "core/quant/reference.h"
#include "core/quant/rows.h"
#include "core/quant/simd_dispatch.h"

HWY_BEFORE_NAMESPACE();
namespace qcache::HWY_NAMESPACE {

#if QCACHE_SCALAR_TARGET

void encode_int8(const EncodeArgs& args) {
  reference::encode_int8(args);
}
void encode_w8a16(const EncodeArgs& args) {
  reference::encode_w8a16(args);
}
void encode_fp8(const EncodeArgs& args) {
  reference::encode_fp8(args);
}
void encode_qfloat8(const EncodeArgs& args) {
  reference::encode_qfloat8(args);
}
void encode_qint8(const EncodeArgs& args) {
  reference::encode_qint8(args);
}
void encode_llm_int8(const EncodeArgs& args) {
  reference::encode_llm_int8(args);
}

#else

/// int8 of value / scale, rounded first as arithmetic in a 16-bit type does it; 23 bits leave it as it is.
template <int kFraction>
class Int8Code {
 public:
  explicit Int8Code(float scale) : scale_(hn::Set(F32(), scale)) {}

  HWY_INLINE VU32 operator()(VF32 value) const {
    const VF32 quotient = round_fraction<kFraction>(hn::Div(value, scale_));
    return hn::And(nearest_integer(clamp(quotient, -128.0F, 127.0F)), hn::Set(U32(), 0xffU));
  }

 private:
  VF32 scale_;
};

class W8a16Code {
 public:
  explicit W8a16Code(float scale) : signed_(scale) {}
  HWY_INLINE VU32 operator()(VF32 value) const { return hn::Xor(signed_(value), hn::Set(U32(), 0x80U)); }

 private:
  Int8Code<23> signed_;
};

/// E4M3 of value / scale, rounded first as above.
template <int kFraction>
class E4M3Code {
 public:
  explicit E4M3Code(float scale) : scale_(hn::Set(F32(), scale)) {}
  HWY_INLINE VU32 operator()(VF32 value) const { return E4M3::code<kFraction>(hn::Div(value, scale_)); }

 private:
  VF32 scale_;
};

/// LLM.int8 casts to F16, saturating, and multiplies.
template <class Source>
class LlmInt8Code {
 public:
  explicit LlmInt8Code(float scale) : multiplier_(hn::Set(F32(), llm_int8_multiplier(scale))) {}

  HWY_INLINE VU32 operator()(VF32 value) const {
    const VF32 steps = hn::Mul(cast(value), multiplier_);
    return hn::And(nearest_integer(steps), hn::Set(U32(), 0xffU));
  }

 private:
  static HWY_INLINE VF32 cast(VF32 value) {
    if constexpr (Source::kDType == DType::kF16) {
      return value;
    } else {
      // As in MiniFloat: F16 has 10 fraction bits and steps of 2^-24 below 2^-14.
      const VF32 magnitude = hn::Min(hn::Abs(value), hn::Set(F32(), 65504.0F));
      const VI32 field = hn::BitCast(I32(), hn::And(hn::BitCast(U32(), magnitude), hn::Set(U32(), 0x7f800000U)));
      const VI32 exponent = hn::Max(field, hn::Set(I32(), (127 - 14) << 23));
      const VF32 addend = hn::BitCast(F32(), hn::Add(exponent, hn::Set(I32(), 13 << 23)));
      return hn::CopySign(hn::Sub(hn::Add(magnitude, addend), addend), value);
    }
  }

  VF32 multiplier_;
};

// A quantizer makes the codes and the scale of one row whose values are all finite.

/// For schemes whose scale is never 0 and has the row's own type.
template <float (*kScale)(DType, float), class Code, reference::RowFunction kReference>
struct Plain {
  static constexpr reference::RowFunction kReferenceRow = kReference;
  template <class Source>
  static HWY_INLINE void encode_row(float amax, const std::byte* row, size_t count, std::byte* codes,
                                    std::byte* scale_out) {
    const float scale = kScale(Source::kDType, amax);
    store_from_float(Source::kDType, scale, scale_out);
    encode_bytes<Source>(Code(scale), row, count, codes);
  }
};
using Int8 = Plain<int8_scale, Int8Code<23>, reference::int8_row>;
using W8a16 = Plain<int8_scale, W8a16Code, reference::w8a16_row>;
using Fp8 = Plain<fp8_scale, E4M3Code<23>, reference::fp8_row>;

/// For quanto's: arithmetic in the row's type, and codes 0 with scale 1 where the scale would be 0.
template <float (*kScale)(DType, float), template <int> class Code, reference::RowFunction kReference>
struct Quanto {
  static constexpr reference::RowFunction kReferenceRow = kReference;
  template <class Source>
  static HWY_INLINE void encode_row(float amax, const std::byte* row, size_t count, std::byte* codes,
                                    std::byte* scale_out) {
    const float scale = kScale(Source::kDType, amax);
    store_from_float(Source::kDType, scale == 0 ? 1.0F : scale, scale_out);
    if (scale == 0) {
      std::memset(codes, 0, count);
    } else {
      encode_bytes<Source>(Code<kFractionBits<Source> >(scale), row, count, codes);
    }
  }
};
using Qfloat8 = Quanto<qfloat8_scale, E4M3Code, reference::qfloat8_row>;
using Qint8 = Quanto<qint8_scale, Int8Code, reference::qint8_row>;

struct LlmInt8 {
  static constexpr reference::RowFunction kReferenceRow = reference::llm_int8_row;
  template <class Source>
  static HWY_INLINE void encode_row(float amax, const std::byte* row, size_t count, std::byte* codes,
                                    std::byte* scale_out) {
    const float scale = llm_int8_scale(amax);
    store_from_float(DType::kF32, scale, scale_out);
    if (scale == 0) {
      std::memset(codes, 0, count);
    } else {
      encode_bytes<Source>(LlmInt8Code<Source>(scale), row, count, codes);
    }
  }
};

template <class Quantizer, class Source>
void encode_rows(const Rows& rows) {
  rows.for_each([&](const std::byte* row, std::byte* codes, std::byte* scale) HWY_ATTR {
    const auto amax = amax_bits<Source>(row, rows.elements);
    if (amax >= Source::kInfinity) {
      Quantizer::kReferenceRow(Source::kDType, row, rows.elements, codes, scale);
    } else {
      Quantizer::template encode_row<Source>(Source::value(amax), row, rows.elements, codes, scale);
    }
  });
}

template <class Quantizer>
void encode(const EncodeArgs& args) {
  const Rows rows(args);
  switch (args.source_dtype) {
    case DType::kBF16:
      return encode_rows<Quantizer, Bf16Source>(rows);
    case DType::kF16:
      return encode_rows<Quantizer, Fp16Source>(rows);
    case DType::kF32:
      return encode_rows<Quantizer, F32Source>(rows);
    default:
      return rows.for_each([&](const std::byte* row, std::byte* codes, std::byte* scale) {
        Quantizer::kReferenceRow(args.source_dtype, row, rows.elements, codes, scale);
      });
  }
}

void encode_int8(const EncodeArgs& args) {
  encode<Int8>(args);
}
void encode_w8a16(const EncodeArgs& args) {
  encode<W8a16>(args);
}
void encode_fp8(const EncodeArgs& args) {
  encode<Fp8>(args);
}
void encode_qfloat8(const EncodeArgs& args) {
  encode<Qfloat8>(args);
}
void encode_qint8(const EncodeArgs& args) {
  encode<Qint8>(args);
}
void encode_llm_int8(const EncodeArgs& args) {
  encode<LlmInt8>(args);
}

#endif

}  // namespace qcache::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qcache::kernels {

void encode_int8(const EncodeArgs& args) {
  QCACHE_DISPATCH(encode_int8)(args);
}
void encode_w8a16(const EncodeArgs& args) {
  QCACHE_DISPATCH(encode_w8a16)(args);
}
void encode_fp8(const EncodeArgs& args) {
  QCACHE_DISPATCH(encode_fp8)(args);
}
void encode_qfloat8(const EncodeArgs& args) {
  QCACHE_DISPATCH(encode_qfloat8)(args);
}
void encode_qint8(const EncodeArgs& args) {
  QCACHE_DISPATCH(encode_qint8)(args);
}
void encode_llm_int8(const EncodeArgs& args) {
  QCACHE_DISPATCH(encode_llm_int8)(args);
}

}  // namespace qcache::kernels
#endif

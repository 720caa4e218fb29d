// int8, fp8 and qfloat8: one scale per row, one byte per element.
#include "core/quant/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/quant/row_kernels.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "core/quant/kernels.h"
#include "core/quant/lanes-inl.h"
#include "core/quant/quantizer.h"
#include "core/quant/reference.h"
#include "core/quant/rows.h"

HWY_BEFORE_NAMESPACE();
namespace qcache::HWY_NAMESPACE {

#if QCACHE_SCALAR_TARGET

void encode_int8(const EncodeArgs& args) {
  reference::encode_int8(args);
}
void encode_fp8(const EncodeArgs& args) {
  reference::encode_fp8(args);
}
void encode_qfloat8(const EncodeArgs& args) {
  reference::encode_qfloat8(args);
}

#else

// A code functor maps fp32 values of a row without NaN and infinities to codes in the lanes' low bytes, the
// other bytes 0.

class Int8Code {
 public:
  explicit Int8Code(float scale) : scale_(hn::Set(F32(), scale)) {}

  HWY_INLINE VU32 operator()(VF32 value) const {
    const VF32 clamped = hn::Min(hn::Max(hn::Div(value, scale_), hn::Set(F32(), -128.0F)), hn::Set(F32(), 127.0F));
    // The unit of 1.5 * 2^23 is 1: the addition rounds half to even and leaves the integer, in two's
    // complement, in the low bits.
    const VF32 rounded = hn::Add(clamped, hn::Set(F32(), 0x1.8p23F));
    return hn::And(hn::BitCast(U32(), rounded), hn::Set(U32(), 0xffU));
  }

 private:
  VF32 scale_;
};

/// E4M3 of value / scale. The quotient is first rounded to kFractionBits, as arithmetic in a 16-bit type
/// does it; 23 leaves it as it is.
///
/// Rounding to a multiple of some 2^k is the addition of 2^(k+23), whose unit is 2^k. For a quotient with
/// exponent e the multiple is 2^(e - fraction bits), so the addend follows from the exponent field.
template <int kFractionBits>
class E4M3Code {
 public:
  explicit E4M3Code(float scale) : scale_(hn::Set(F32(), scale)) {}

  HWY_INLINE VU32 operator()(VF32 value) const {
    const VU32 exponent_mask = hn::Set(U32(), 0x7f800000U);
    const VF32 quotient = hn::Div(value, scale_);
    const VU32 sign = hn::And(hn::ShiftRight<24>(hn::BitCast(U32(), quotient)), hn::Set(U32(), 0x80U));
    VF32 magnitude = hn::Min(hn::Abs(quotient), hn::Set(F32(), kE4M3Max));
    VU32 exponent = hn::And(hn::BitCast(U32(), magnitude), exponent_mask);
    if constexpr (kFractionBits < 23) {
      const VF32 addend = hn::BitCast(F32(), hn::Add(exponent, hn::Set(U32(), uint32_t{23 - kFractionBits} << 23)));
      magnitude = hn::Sub(hn::Add(magnitude, addend), addend);
    }
    // Below 2^-6 the steps of E4M3 stay 2^-9. If the rounding above went up to the next power of two,
    // the old exponent still gives the right code: 16 steps instead of 8 of twice the size.
    exponent = max_u32(exponent, hn::Set(U32(), kMinExponent));
    const VU32 addend = hn::Add(exponent, hn::Set(U32(), uint32_t{23 - 3} << 23));
    const VU32 steps = hn::Sub(hn::BitCast(U32(), hn::Add(magnitude, hn::BitCast(F32(), addend))), addend);
    const VU32 base = hn::Sub(hn::ShiftRight<20>(exponent), hn::Set(U32(), kMinExponent >> 20));
    return hn::Or(hn::Add(base, steps), sign);
  }

 private:
  static constexpr uint32_t kMinExponent = (127 - 6) << 23;

  /// Exponent fields are non-negative as signed integers, which every instruction set can compare.
  static HWY_INLINE VU32 max_u32(VU32 a, VU32 b) {
    return hn::BitCast(U32(), hn::Max(hn::BitCast(I32(), a), hn::BitCast(I32(), b)));
  }

  VF32 scale_;
};

/// Encodes 2 * Lanes(F32) elements.
template <class Source, class Code>
HWY_INLINE void encode_step(const Code& code, const std::byte* from, std::byte* to) {
  const EvenOdd values = Source::load(from);
  const VU32 joined = hn::Or(code(values.even), hn::ShiftLeft<8>(code(values.odd)));
  const hn::Rebind<uint16_t, F32> d16;
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(I32(), joined)), d16, reinterpret_cast<uint16_t*>(to));
}

template <class Source, class Code>
HWY_INLINE void encode_elements(const Code& code, const std::byte* from, size_t count, std::byte* to) {
  constexpr size_t kItem = sizeof(typename Source::Bits);
  const size_t step = 2 * hn::Lanes(F32());
  size_t i = 0;
  for (; i + step <= count; i += step) {
    encode_step<Source>(code, from + i * kItem, to + i);
  }
  if (i < count) {
    std::byte padded[2 * kMaxLanes * kItem] = {};
    std::byte codes[2 * kMaxLanes];
    std::memcpy(padded, from + i * kItem, (count - i) * kItem);
    encode_step<Source>(code, padded, codes);
    std::memcpy(to + i, codes, count - i);
  }
}

struct Int8 {
  static constexpr auto kReferenceRow = &reference::int8_row;
  template <class Source>
  static HWY_INLINE void encode_row(float amax, const std::byte* row, size_t count, std::byte* codes,
                                    std::byte* scale_out) {
    const float scale = int8_scale(Source::kDType, amax);
    store_from_float(Source::kDType, scale, scale_out);
    encode_elements<Source>(Int8Code(scale), row, count, codes);
  }
};

struct Fp8 {
  static constexpr auto kReferenceRow = &reference::fp8_row;
  template <class Source>
  static HWY_INLINE void encode_row(float amax, const std::byte* row, size_t count, std::byte* codes,
                                    std::byte* scale_out) {
    const float scale = fp8_scale(Source::kDType, amax);
    store_from_float(Source::kDType, scale, scale_out);
    encode_elements<Source>(E4M3Code<23>(scale), row, count, codes);
  }
};

struct Qfloat8 {
  static constexpr auto kReferenceRow = &reference::qfloat8_row;
  template <class Source>
  static HWY_INLINE void encode_row(float amax, const std::byte* row, size_t count, std::byte* codes,
                                    std::byte* scale_out) {
    constexpr int kFractionBits = Source::kDType == DType::kBF16 ? 7 : Source::kDType == DType::kF16 ? 10 : 23;
    const float scale = qfloat8_scale(Source::kDType, amax);
    store_from_float(Source::kDType, scale == 0 ? 1.0F : scale, scale_out);
    if (scale == 0) {
      std::memset(codes, 0, count);
      return;
    }
    encode_elements<Source>(E4M3Code<kFractionBits>(scale), row, count, codes);
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
void encode_fp8(const EncodeArgs& args) {
  encode<Fp8>(args);
}
void encode_qfloat8(const EncodeArgs& args) {
  encode<Qfloat8>(args);
}

#endif

}  // namespace qcache::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qcache {
HWY_EXPORT(encode_int8);
HWY_EXPORT(encode_fp8);
HWY_EXPORT(encode_qfloat8);
}  // namespace qcache

namespace qcache::kernels {

void encode_int8(const EncodeArgs& args) {
  HWY_DYNAMIC_DISPATCH(encode_int8)(args);
}
void encode_fp8(const EncodeArgs& args) {
  HWY_DYNAMIC_DISPATCH(encode_fp8)(args);
}
void encode_qfloat8(const EncodeArgs& args) {
  HWY_DYNAMIC_DISPATCH(encode_qfloat8)(args);
}

}  // namespace qcache::kernels
#endif

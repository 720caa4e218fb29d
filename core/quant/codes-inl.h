// Included once per instruction set by the kernel files; see hwy/foreach_target.h.
#if defined(QCACHE_QUANT_CODES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QCACHE_QUANT_CODES_INL_H_
#undef QCACHE_QUANT_CODES_INL_H_
#else
#define QCACHE_QUANT_CODES_INL_H_
#endif

#include <hwy/highway.h>

#include "core/quant/lanes-inl.h"

#if !QCACHE_SCALAR_TARGET
HWY_BEFORE_NAMESPACE();
namespace qcache::HWY_NAMESPACE {

// A code functor maps fp32 values, none of them NaN or infinite, to codes in the lanes' low bits, the others 0.

/// `value` rounded to a multiple of a power of two so that the fraction has kBits left, ties to even.
template <int kBits>
HWY_INLINE VF32 round_fraction(VF32 value) {
  if constexpr (kBits == 23) {
    return value;
  } else {
    constexpr int kDropped = 23 - kBits;
    const VU32 bits = hn::BitCast(U32(), value);
    const VU32 tie = hn::And(hn::ShiftRight<kDropped>(bits), hn::Set(U32(), 1));
    const VU32 up = hn::Add(hn::Add(bits, hn::Set(U32(), (1U << (kDropped - 1)) - 1)), tie);
    return hn::BitCast(F32(), hn::And(up, hn::Set(U32(), ~((1U << kDropped) - 1))));
  }
}

/// Fraction bits of the type that a 16-bit source's framework computes in.
template <class Source>
inline constexpr int kFractionBits = Source::kDType == DType::kBF16  ? 7
                                     : Source::kDType == DType::kF16 ? 10
                                                                     : 23;

/// The nearest integer of a magnitude below 2^22, ties to even, in two's complement. The unit of 1.5 * 2^23 is 1: the
/// addition rounds and leaves the integer in the low bits.
HWY_INLINE VU32 nearest_integer(VF32 value) {
  return hn::BitCast(U32(), hn::Add(value, hn::Set(F32(), 0x1.8p23F)));
}

HWY_INLINE VF32 clamp(VF32 value, float low, float high) {
  return hn::Min(hn::Max(value, hn::Set(F32(), low)), hn::Set(F32(), high));
}

/// E4M3, E2M1: a sign, then exponents from kMinExponent on with kFraction bits below; saturates at `kMax`.
///
/// Rounding to a multiple of some 2^k is the addition of 2^(k+23), whose unit is 2^k. For a magnitude with exponent e
/// the multiple is 2^(e - kFraction), so the addend follows from the exponent field.
template <int kFraction, int kMinExponent, int kSignBit, int kMax>
struct MiniFloat {
  /// `value` is rounded to kBits of fraction first, as arithmetic in a 16-bit type does it; 23 leave it as it is.
  template <int kBits = 23>
  static HWY_INLINE VU32 code(VF32 value) {
    constexpr uint32_t kMinField = (127 + kMinExponent) << 23;
    const VU32 sign = hn::And(hn::ShiftRight<31 - kSignBit>(hn::BitCast(U32(), value)), hn::Set(U32(), 1U << kSignBit));
    VF32 magnitude = hn::Min(hn::Abs(value), hn::Set(F32(), static_cast<float>(kMax)));
    VU32 exponent = hn::And(hn::BitCast(U32(), magnitude), hn::Set(U32(), 0x7f800000U));
    if constexpr (kBits < 23) {
      const VF32 addend = hn::BitCast(F32(), hn::Add(exponent, hn::Set(U32(), uint32_t{23 - kBits} << 23)));
      magnitude = hn::Sub(hn::Add(magnitude, addend), addend);
    }
    // Below the least exponent the steps stay the same. If the rounding above went up to the next power of two, the old
    // exponent still gives the right code: twice as many steps of half the size.
    exponent = max_u32(exponent, hn::Set(U32(), kMinField));
    const VU32 addend = hn::Add(exponent, hn::Set(U32(), uint32_t{23 - kFraction} << 23));
    const VU32 steps = hn::Sub(hn::BitCast(U32(), hn::Add(magnitude, hn::BitCast(F32(), addend))), addend);
    const VU32 base = hn::Sub(hn::ShiftRight<23 - kFraction>(exponent), hn::Set(U32(), kMinField >> (23 - kFraction)));
    return hn::Or(hn::Add(base, steps), sign);
  }

 private:
  /// Exponent fields are non-negative as signed integers, which every instruction set can compare.
  static HWY_INLINE VU32 max_u32(VU32 a, VU32 b) {
    return hn::BitCast(U32(), hn::Max(hn::BitCast(I32(), a), hn::BitCast(I32(), b)));
  }
};
using E4M3 = MiniFloat<3, -6, 7, 448>;
/// Here -0 has to be made +0 first.
using E2M1 = MiniFloat<1, 0, 3, 6>;

/// One byte per element, 2 * Lanes(F32) elements.
template <class Source, class Code>
HWY_INLINE void encode_bytes_step(const Code& code, const std::byte* from, std::byte* to) {
  const EvenOdd values = Source::load(from);
  const VU32 joined = hn::Or(code(values.even), hn::ShiftLeft<8>(code(values.odd)));
  const hn::Rebind<uint16_t, F32> d16;
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(I32(), joined)), d16, reinterpret_cast<uint16_t*>(to));
}

/// One byte per element.
template <class Source, class Code>
HWY_INLINE void encode_bytes(const Code& code, const std::byte* from, size_t count, std::byte* to) {
  constexpr size_t kItem = sizeof(typename Source::Bits);
  const size_t step = 2 * hn::Lanes(F32());
  size_t i = 0;
  for (; i + step <= count; i += step) {
    encode_bytes_step<Source>(code, from + i * kItem, to + i);
  }
  if (i < count) {
    std::byte padded[2 * kMaxLanes * kItem] = {};
    std::byte codes[2 * kMaxLanes];
    std::memcpy(padded, from + i * kItem, (count - i) * kItem);
    encode_bytes_step<Source>(code, padded, codes);
    std::memcpy(to + i, codes, count - i);
  }
}

/// Stores Lanes(F32) bytes, each made of two codes of 4 bits.
HWY_INLINE void store_nibbles(VU32 low, VU32 high, std::byte* to) {
  const hn::Rebind<uint8_t, F32> d8;
  const VI32 joined = hn::BitCast(I32(), hn::Or(low, hn::ShiftLeft<4>(high)));
  hn::StoreU(hn::DemoteTo(d8, joined), d8, reinterpret_cast<uint8_t*>(to));
}

/// The largest magnitude among `count` elements, a multiple of kMultiple (a power of two), as bits; like amax_bits, and
/// fast for few elements.
template <class Source, size_t kMultiple>
HWY_INLINE typename Source::Bits amax_bits_of_multiple(const std::byte* from, size_t count) {
  const hn::CappedTag<SignedBits<Source>, kMultiple> d;
  const size_t lanes = hn::Lanes(d);
  const auto mask = hn::Set(d, kMagnitudeMask<Source>);
  const auto* in = elements<SignedBits<Source>>(from);
  auto amax = hn::Zero(d);
  for (size_t i = 0; i < count; i += lanes) {
    amax = hn::Max(amax, hn::And(hn::LoadU(d, in + i), mask));
  }
  const hn::RebindToUnsigned<decltype(d)> du;
  return hn::GetLane(hn::MaxOfLanes(du, hn::BitCast(du, amax)));
}

/// Calls `run(Source())` for the source type of a call; false where that is done by the reference alone.
template <class Run>
HWY_INLINE bool with_source(DType dtype, const Run& run) {
  switch (dtype) {
    case DType::kBF16:
      run(Bf16Source());
      return true;
    case DType::kF16:
      run(Fp16Source());
      return true;
    case DType::kF32:
      run(F32Source());
      return true;
    default:
      return false;
  }
}

}  // namespace qcache::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // !QCACHE_SCALAR_TARGET

#endif  // include guard

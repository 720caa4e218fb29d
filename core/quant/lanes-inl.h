// Included once per instruction set by the kernel files; see hwy/foreach_target.h.
#if defined(QCACHE_QUANT_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QCACHE_QUANT_LANES_INL_H_
#undef QCACHE_QUANT_LANES_INL_H_
#else
#define QCACHE_QUANT_LANES_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/quant/number_formats.h"
#include "core/quant/simd_targets.h"

#if !QCACHE_SCALAR_TARGET
HWY_BEFORE_NAMESPACE();
namespace qcache::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;
using I32 = hn::RebindToSigned<F32>;
using U32 = hn::RebindToUnsigned<F32>;
using VF32 = hn::Vec<F32>;
using VI32 = hn::Vec<I32>;
using VU32 = hn::Vec<U32>;

/// Lanes of the widest vector that this build has, for buffers on the stack.
inline constexpr size_t kMaxLanes = HWY_MAX_BYTES / sizeof(float);

template <typename T>
HWY_INLINE const T* elements(const std::byte* from) {
  return reinterpret_cast<const T*>(from);  // only for unaligned vector loads and memcpy
}

/// Twice Lanes(F32) consecutive elements: those at even indices and those at odd ones. Element-wise work on
/// them ends in codes of at most 16 bits that are joined again in place, so no lane ever has to move.
struct EvenOdd {
  VF32 even;
  VF32 odd;
};

/// How a source type is read: `Bits` holds one element's bits, a magnitude of kInfinity or more is not finite.
struct Bf16Source {
  using Bits = uint16_t;
  static constexpr Bits kInfinity = 0x7f80;
  static constexpr DType kDType = DType::kBF16;

  static float value(Bits bits) { return bf16_to_float(bits); }
  static HWY_INLINE EvenOdd load(const std::byte* from) {
    const VU32 both = hn::LoadU(U32(), elements<uint32_t>(from));
    return {hn::BitCast(F32(), hn::ShiftLeft<16>(both)),
            hn::BitCast(F32(), hn::And(both, hn::Set(U32(), 0xffff0000U)))};
  }
};

/// Exact for finite values only.
struct Fp16Source {
  using Bits = uint16_t;
  static constexpr Bits kInfinity = 0x7c00;
  static constexpr DType kDType = DType::kF16;

  static float value(Bits bits) { return fp16_to_float(bits); }
  static HWY_INLINE EvenOdd load(const std::byte* from) {
    const VU32 both = hn::LoadU(U32(), elements<uint32_t>(from));
    return {widen(hn::ShiftLeft<16>(both)), widen(both)};
  }

 private:
  /// From the upper halves of the lanes. As fp32 with the same fields the value would be 2^112 too small;
  /// the multiplication is exact and normalizes denormals.
  static HWY_INLINE VF32 widen(VU32 upper) {
    const VU32 magnitude = hn::ShiftRight<3>(hn::And(upper, hn::Set(U32(), 0x7fff0000U)));
    const VF32 scaled = hn::Mul(hn::BitCast(F32(), magnitude), hn::Set(F32(), 0x1p112F));
    return hn::Or(scaled, hn::BitCast(F32(), hn::And(upper, hn::Set(U32(), 0x80000000U))));
  }
};

struct F32Source {
  using Bits = uint32_t;
  static constexpr Bits kInfinity = 0x7f800000;
  static constexpr DType kDType = DType::kF32;

  static float value(Bits bits) { return std::bit_cast<float>(bits); }
  static HWY_INLINE EvenOdd load(const std::byte* from) {
    EvenOdd out;
    hn::LoadInterleaved2(F32(), elements<float>(from), out.even, out.odd);
    return out;
  }
};

/// A source's bits as signed integers: magnitudes, non-negative, order like the values do, and every
/// instruction set can compare signed lanes.
template <class Source>
using SignedBits = hwy::MakeSigned<typename Source::Bits>;

template <class Source>
inline constexpr auto kMagnitudeMask =
    static_cast<SignedBits<Source>>(static_cast<typename Source::Bits>(~typename Source::Bits{0}) >> 1);

/// The largest magnitude among `count` elements, a multiple of 2 * Lanes, as bits; any element that is not
/// finite makes it kInfinity or more.
template <class Source>
HWY_INLINE typename Source::Bits amax_bits_whole(const std::byte* from, size_t count) {
  const hn::ScalableTag<SignedBits<Source>> d;
  const size_t lanes = hn::Lanes(d);
  const auto mask = hn::Set(d, kMagnitudeMask<Source>);
  const auto* in = elements<SignedBits<Source>>(from);
  auto even = hn::Zero(d);
  auto odd = hn::Zero(d);
  for (size_t i = 0; i < count; i += 2 * lanes) {
    even = hn::Max(even, hn::And(hn::LoadU(d, in + i), mask));
    odd = hn::Max(odd, hn::And(hn::LoadU(d, in + i + lanes), mask));
  }
  const hn::RebindToUnsigned<decltype(d)> du;
  return hn::GetLane(hn::MaxOfLanes(du, hn::BitCast(du, hn::Max(even, odd))));
}

/// The same for any number of elements.
template <class Source>
HWY_INLINE typename Source::Bits amax_bits(const std::byte* from, size_t count) {
  using Bits = typename Source::Bits;
  const size_t step = 2 * hn::Lanes(hn::ScalableTag<SignedBits<Source>>());
  const size_t whole = count - count % step;
  Bits amax = amax_bits_whole<Source>(from, whole);
  for (size_t i = whole; i < count; ++i) {
    Bits bits = 0;
    std::memcpy(&bits, from + i * sizeof(Bits), sizeof bits);
    amax = std::max(amax, static_cast<Bits>(bits & static_cast<Bits>(kMagnitudeMask<Source>)));
  }
  return amax;
}

}  // namespace qcache::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // !QCACHE_SCALAR_TARGET

#endif  // include guard

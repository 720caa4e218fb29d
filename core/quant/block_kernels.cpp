// fp8-block and qint4, whose units are no rows: squares that share a scale, and pairs of groups that share bytes.
#include "core/quant/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/quant/block_kernels.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cmath>
#include <limits>

#include "core/quant/codes-inl.h"
#include "core/quant/kernels.h"
#include "core/quant/quantizer.h"
#include "core/quant/reference.h"
#include "core/quant/simd_dispatch.h"
#include "core/quant/units.h"

HWY_BEFORE_NAMESPACE();
namespace qcache::HWY_NAMESPACE {

#if QCACHE_SCALAR_TARGET

void encode_fp8_block(const EncodeArgs& args) {
  reference::encode_fp8_block(args);
}
void encode_qint4(const EncodeArgs& args) {
  reference::encode_qint4(args);
}

#else

class ScaledE4M3Code {
 public:
  explicit ScaledE4M3Code(float multiplier) : multiplier_(hn::Set(F32(), multiplier)) {}
  HWY_INLINE VU32 operator()(VF32 value) const { return E4M3::code(hn::Mul(value, multiplier_)); }

 private:
  VF32 multiplier_;
};

template <class Source>
HWY_INLINE typename Source::Bits square_amax(const std::byte* first, uint64_t stride) {
  const hn::ScalableTag<SignedBits<Source> > d;
  const auto mask = hn::Set(d, kMagnitudeMask<Source>);
  auto amax = hn::Zero(d);
  for (size_t row = 0; row < kFp8BlockSide; ++row) {
    const auto* in = elements<SignedBits<Source> >(first + row * stride);
    for (size_t i = 0; i < kFp8BlockSide; i += hn::Lanes(d)) {
      amax = hn::Max(amax, hn::And(hn::LoadU(d, in + i), mask));
    }
  }
  const hn::RebindToUnsigned<decltype(d)> du;
  return hn::GetLane(hn::MaxOfLanes(du, hn::BitCast(du, amax)));
}

void encode_fp8_block(const EncodeArgs& args) {
  const bool done = with_source(args.source_dtype, [&](auto source) HWY_ATTR {
    using Source = decltype(source);
    for_each_fp8_square(args, [&](const std::byte* first, uint64_t stride, std::byte* codes, uint64_t codes_stride,
                                  std::byte* scale) HWY_ATTR {
      const auto amax = square_amax<Source>(first, stride);
      if (amax >= Source::kInfinity) {
        reference::fp8_square(Source::kDType, first, stride, codes, codes_stride, scale);
        return;
      }
      const float multiplier = fp8_block_multiplier(Source::value(amax));
      store_from_float(DType::kF32, 1.0F / multiplier, scale);
      const ScaledE4M3Code code(multiplier);
      for (size_t row = 0; row < kFp8BlockSide; ++row) {
        encode_bytes<Source>(code, first + row * stride, kFp8BlockSide, codes + row * codes_stride);
      }
    });
  });
  if (!done) {
    reference::encode_fp8_block(args);
  }
}

/// The least and greatest of `count` finite values.
template <class Source>
HWY_INLINE void least_and_greatest(const std::byte* from, size_t count, float& low, float& high) {
  constexpr size_t kItem = sizeof(typename Source::Bits);
  const size_t step = 2 * hn::Lanes(F32());
  VF32 least = hn::Set(F32(), std::numeric_limits<float>::max());
  VF32 greatest = hn::Neg(least);
  size_t i = 0;
  for (; i + step <= count; i += step) {
    const EvenOdd values = Source::load(from + i * kItem);
    least = hn::Min(least, hn::Min(values.even, values.odd));
    greatest = hn::Max(greatest, hn::Max(values.even, values.odd));
  }
  low = hn::GetLane(hn::MinOfLanes(F32(), least));
  high = hn::GetLane(hn::MaxOfLanes(F32(), greatest));
  for (; i < count; ++i) {
    const float value = load_as_float(Source::kDType, from + i * kItem);
    low = std::fmin(low, value);
    high = std::fmax(high, value);
  }
}

template <class Source>
class Qint4Code {
 public:
  /// Dividing by infinity gives the codes 0 of groups whose scale is 0.
  explicit Qint4Code(const Qint4Range& range)
      : shift_(hn::Set(F32(), range.shift)),
        scale_(hn::Set(F32(), range.scale == 0 ? std::numeric_limits<float>::infinity() : range.scale)) {}

  HWY_INLINE VU32 operator()(VF32 value) const {
    const VF32 above_low = round_fraction<kFractionBits<Source> >(hn::Add(value, shift_));
    const VF32 steps = round_fraction<kFractionBits<Source> >(hn::Div(above_low, scale_));
    return hn::And(nearest_integer(clamp(steps, 0.0F, 15.0F)), hn::Set(U32(), 0xfU));
  }

 private:
  VF32 shift_;
  VF32 scale_;
};

/// One group's range, or false where the reference has to make it.
template <class Source>
HWY_INLINE bool plain_range(const std::byte* group, size_t count, Qint4Range& range) {
  if (amax_bits<Source>(group, count) >= Source::kInfinity) {
    return false;
  }
  float low = 0;
  float high = 0;
  least_and_greatest<Source>(group, count, low, high);
  range = qint4_range(Source::kDType, low, high);
  return std::isfinite(round_to(Source::kDType, high - low));
}

template <class Source>
HWY_INLINE void encode_pair_step(const Qint4Code<Source>& low, const Qint4Code<Source>& high, const std::byte* first,
                                 const std::byte* second, std::byte* to) {
  const EvenOdd a = Source::load(first);
  const EvenOdd b = Source::load(second);
  const VU32 even = hn::Or(low(a.even), hn::ShiftLeft<4>(high(b.even)));
  const VU32 odd = hn::Or(low(a.odd), hn::ShiftLeft<4>(high(b.odd)));
  const hn::Rebind<uint16_t, F32> d16;
  const VI32 joined = hn::BitCast(I32(), hn::Or(even, hn::ShiftLeft<8>(odd)));
  hn::StoreU(hn::DemoteTo(d16, joined), d16, reinterpret_cast<uint16_t*>(to));
}

void store_range(DType dtype, const Qint4Range& range, std::byte* scale, std::byte* shift) {
  store_from_float(dtype, range.scale == 0 ? 1.0F : range.scale, scale);
  store_from_float(dtype, range.shift, shift);
}

template <class Source>
void encode_pair(const std::byte* first, const std::byte* second, size_t count, const Qint4Range& low_range,
                 const Qint4Range& high_range, std::byte* codes) {
  constexpr size_t kItem = sizeof(typename Source::Bits);
  const size_t step = 2 * hn::Lanes(F32());
  const Qint4Code<Source> low(low_range);
  const Qint4Code<Source> high(high_range);
  size_t i = 0;
  for (; i + step <= count; i += step) {
    encode_pair_step<Source>(low, high, first + i * kItem, second + i * kItem, codes + i);
  }
  if (i < count) {
    std::byte padded[2][2 * kMaxLanes * kItem] = {};
    std::byte out[2 * kMaxLanes];
    std::memcpy(padded[0], first + i * kItem, (count - i) * kItem);
    std::memcpy(padded[1], second + i * kItem, (count - i) * kItem);
    encode_pair_step<Source>(low, high, padded[0], padded[1], out);
    std::memcpy(codes + i, out, count - i);
  }
}

void encode_qint4(const EncodeArgs& args) {
  const uint64_t count = args.group_elements;
  const bool done = with_source(args.source_dtype, [&](auto source) HWY_ATTR {
    using Source = decltype(source);
    for_each_qint4_pair(args, [&](const std::byte* first, const std::byte* second, std::byte* codes, std::byte* scale,
                                  std::byte* shift, uint64_t to_second) HWY_ATTR {
      Qint4Range low;
      Qint4Range high;
      if (second != nullptr && plain_range<Source>(first, count, low) && plain_range<Source>(second, count, high)) {
        encode_pair<Source>(first, second, count, low, high, codes);
        store_range(Source::kDType, low, scale, shift);
        store_range(Source::kDType, high, scale + to_second, shift + to_second);
        return;
      }
      reference::qint4_pair(Source::kDType, first, second, count, codes);
      reference::qint4_range_of(Source::kDType, first, count, scale, shift);
      if (second != nullptr) {
        reference::qint4_range_of(Source::kDType, second, count, scale + to_second, shift + to_second);
      }
    });
  });
  if (!done) {
    reference::encode_qint4(args);
  }
}

#endif

}  // namespace qcache::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qcache::kernels {

void encode_fp8_block(const EncodeArgs& args) {
  QCACHE_DISPATCH(encode_fp8_block)(args);
}
void encode_qint4(const EncodeArgs& args) {
  QCACHE_DISPATCH(encode_qint4)(args);
}

}  // namespace qcache::kernels
#endif

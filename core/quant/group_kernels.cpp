// int4, mxfp4 and nvfp4: one scale per group, two codes per byte, the first in the low half.
#include "core/quant/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/quant/group_kernels.cpp"
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

void encode_int4(const EncodeArgs& args) {
  reference::encode_int4(args);
}
void encode_mxfp4(const EncodeArgs& args) {
  reference::encode_mxfp4(args);
}
void encode_nvfp4(const EncodeArgs& args) {
  reference::encode_nvfp4(args);
}

#else

class Int4Code {
 public:
  explicit Int4Code(float scale) : scale_(hn::Set(F32(), scale)) {}
  /// q + 8: the sign bit of a 4-bit integer flipped.
  HWY_INLINE VU32 operator()(VF32 value) const {
    const VU32 integer = nearest_integer(clamp(hn::Div(value, scale_), -8.0F, 7.0F));
    return hn::Xor(hn::And(integer, hn::Set(U32(), 0xfU)), hn::Set(U32(), 8));
  }

 private:
  VF32 scale_;
};

class Mxfp4Code {
 public:
  explicit Mxfp4Code(float multiplier) : multiplier_(hn::Set(F32(), multiplier)) {}
  /// The addition makes -0 +0.
  HWY_INLINE VU32 operator()(VF32 value) const {
    return E2M1::code(hn::Add(hn::Mul(value, multiplier_), hn::Zero(F32())));
  }

 private:
  VF32 multiplier_;
};

/// Groups are multiples of 32 elements, and so of every vector.
template <class Source, class Code>
HWY_INLINE void encode_nibbles(const Code& code, const std::byte* from, size_t count, std::byte* to) {
  for (size_t i = 0; i < count; i += 2 * hn::Lanes(F32())) {
    const EvenOdd values = Source::load(from + i * sizeof(typename Source::Bits));
    store_nibbles(code(values.even), code(values.odd), to + i / 2);
  }
}

struct Int4 {
  static constexpr reference::RowFunction kReferenceRow = reference::int4_row;
  template <class Source>
  static HWY_INLINE void encode_group(float amax, const std::byte* group, size_t count, std::byte* codes,
                                      std::byte* scale_out) {
    const float scale = int4_scale(Source::kDType, amax);
    store_from_float(Source::kDType, scale, scale_out);
    encode_nibbles<Source>(Int4Code(scale), group, count, codes);
  }
};

struct Mxfp4 {
  static constexpr reference::RowFunction kReferenceRow = reference::mxfp4_row;
  template <class Source>
  static HWY_INLINE void encode_group(float amax, const std::byte* group, size_t count, std::byte* codes,
                                      std::byte* scale_out) {
    const uint8_t exponent = mxfp4_exponent(amax);
    *scale_out = std::byte{exponent};
    encode_nibbles<Source>(Mxfp4Code(mxfp4_multiplier(exponent)), group, count, codes);
  }
};

template <class Quantizer>
void encode_groups(const EncodeArgs& args) {
  const Rows groups(args);
  const bool done = with_source(args.source_dtype, [&](auto source) HWY_ATTR {
    using Source = decltype(source);
    groups.for_each([&](const std::byte* group, std::byte* codes, std::byte* scale) HWY_ATTR {
      const auto amax = amax_bits_of_multiple<Source, 32>(group, groups.elements);
      if (amax >= Source::kInfinity) {
        Quantizer::kReferenceRow(Source::kDType, group, groups.elements, codes, scale);
      } else {
        Quantizer::template encode_group<Source>(Source::value(amax), group, groups.elements, codes, scale);
      }
    });
  });
  if (!done) {
    groups.for_each([&](const std::byte* group, std::byte* codes, std::byte* scale) {
      Quantizer::kReferenceRow(args.source_dtype, group, groups.elements, codes, scale);
    });
  }
}

/// A vector of nvfp4 may hold elements of two groups, so four groups are worked on at a time, each lane with the scale
/// of its own group.
constexpr size_t kNvfp4Step = 4;

template <class Source>
void encode_nvfp4_step(const std::byte* from, float global_scale, std::byte* codes, std::byte* scales) {
  constexpr size_t kGroup = kNvfp4GroupElements;
  constexpr size_t kItem = sizeof(typename Source::Bits);
  float lane_scales[kNvfp4Step * kGroup / 2];
  bool finite = true;
  for (size_t g = 0; g < kNvfp4Step; ++g) {
    const auto amax = amax_bits_of_multiple<Source, kGroup>(from + g * kGroup * kItem, kGroup);
    finite = finite && amax < Source::kInfinity;
    const uint8_t local = nvfp4_group_scale(global_scale, finite ? Source::value(amax) : 0.0F);
    scales[g] = std::byte{local};
    std::fill_n(lane_scales + g * kGroup / 2, kGroup / 2, e4m3_to_float(local) / global_scale);
  }
  if (!finite) {
    for (size_t g = 0; g < kNvfp4Step; ++g) {
      reference::nvfp4_group(Source::kDType, from + g * kGroup * kItem, global_scale, codes + g * kGroup / 2,
                             scales + g);
    }
    return;
  }
  for (size_t i = 0; i < kNvfp4Step * kGroup; i += 2 * hn::Lanes(F32())) {
    const EvenOdd values = Source::load(from + i * kItem);
    const VF32 scale = hn::LoadU(F32(), lane_scales + i / 2);
    store_nibbles(E2M1::code(hn::Add(hn::Div(values.even, scale), hn::Zero(F32()))),
                  E2M1::code(hn::Add(hn::Div(values.odd, scale), hn::Zero(F32()))), codes + i / 2);
  }
}

void encode_int4(const EncodeArgs& args) {
  encode_groups<Int4>(args);
}
void encode_mxfp4(const EncodeArgs& args) {
  encode_groups<Mxfp4>(args);
}

void encode_nvfp4(const EncodeArgs& args) {
  const Rows groups(args);
  const float global_scale = nvfp4_global_scale(args.survey->amax);
  size_t done = 0;
  with_source(args.source_dtype, [&](auto source) HWY_ATTR {
    for (; done + kNvfp4Step <= groups.count; done += kNvfp4Step) {
      encode_nvfp4_step<decltype(source)>(groups.source + done * groups.source_stride, global_scale,
                                          groups.codes + done * groups.codes_stride,
                                          groups.scales + done * groups.scales_stride);
    }
  });
  for (; done < groups.count; ++done) {
    reference::nvfp4_group(args.source_dtype, groups.source + done * groups.source_stride, global_scale,
                           groups.codes + done * groups.codes_stride, groups.scales + done * groups.scales_stride);
  }
}

#endif

}  // namespace qcache::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qcache::kernels {

void encode_int4(const EncodeArgs& args) {
  QCACHE_DISPATCH(encode_int4)(args);
}
void encode_mxfp4(const EncodeArgs& args) {
  QCACHE_DISPATCH(encode_mxfp4)(args);
}
void encode_nvfp4(const EncodeArgs& args) {
  QCACHE_DISPATCH(encode_nvfp4)(args);
}

}  // namespace qcache::kernels
#endif

// bf16, fp16 and fp32: each element by itself.
#include "core/quant/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/quant/cast_kernels.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "core/quant/kernels.h"
#include "core/quant/lanes-inl.h"
#include "core/quant/reference.h"
#include "core/quant/simd_dispatch.h"

HWY_BEFORE_NAMESPACE();
namespace qcache::HWY_NAMESPACE {

#if QCACHE_SCALAR_TARGET

void cast_to_bf16(const EncodeArgs& args) {
  reference::cast_to_bf16(args);
}
void cast_to_fp16(const EncodeArgs& args) {
  reference::cast_to_fp16(args);
}
void cast_to_fp32(const EncodeArgs& args) {
  reference::cast_to_fp32(args);
}

#else

// Every 16-bit format is held in the low half of 32-bit lanes while it is worked on.

HWY_INLINE VU32 bits_where(hn::Mask<I32> condition, uint32_t bits) {
  return hn::IfThenElseZero(hn::RebindMask(U32(), condition), hn::Set(U32(), bits));
}

/// `value` is non-negative as a signed integer.
HWY_INLINE hn::Mask<I32> at_least(VU32 value, uint32_t bound) {
  return hn::Gt(hn::BitCast(I32(), value), hn::Set(I32(), static_cast<int32_t>(bound) - 1));
}

HWY_INLINE VU32 even_bit(VU32 shifted) {
  return hn::And(shifted, hn::Set(U32(), 1));
}

/// The values of one lane group of a source.
struct WidenBf16 {
  static HWY_INLINE VU32 load(const std::byte* from) {
    const hn::Rebind<uint16_t, F32> d16;
    return hn::ShiftLeft<16>(hn::PromoteTo(U32(), hn::LoadU(d16, elements<uint16_t>(from))));
  }
  static constexpr size_t kItem = 2;
};

struct WidenFp16 {
  static HWY_INLINE VU32 load(const std::byte* from) {
    const hn::Rebind<uint16_t, F32> d16;
    const VU32 bits = hn::PromoteTo(U32(), hn::LoadU(d16, elements<uint16_t>(from)));
    const VU32 magnitude = hn::And(bits, hn::Set(U32(), 0x7fffU));
    // As fp32 with the same fields the value would be 2^112 too small; the product is exact.
    const VF32 scaled = hn::Mul(hn::BitCast(F32(), hn::ShiftLeft<13>(magnitude)), hn::Set(F32(), 0x1p112F));
    const VU32 special = hn::Or(bits_where(at_least(magnitude, 0x7c00), 0x7f800000),
                                bits_where(at_least(magnitude, 0x7c01), 0x00400000));
    const VU32 sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(U32(), 0x8000U)));
    return hn::Or(hn::Or(hn::BitCast(U32(), scaled), special), sign);
  }
  static constexpr size_t kItem = 2;
};

struct WidenF32 {
  static HWY_INLINE VU32 load(const std::byte* from) { return hn::LoadU(U32(), elements<uint32_t>(from)); }
  static constexpr size_t kItem = 4;
};

struct NarrowBf16 {
  static HWY_INLINE void store(VU32 bits, std::byte* to) {
    const VU32 upper = hn::ShiftRight<16>(bits);
    const VU32 rounded = hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(U32(), 0x7fffU)), even_bit(upper)));
    const VU32 magnitude = hn::And(bits, hn::Set(U32(), 0x7fffffffU));
    const auto is_nan = hn::RebindMask(U32(), at_least(magnitude, 0x7f800001));
    const VU32 narrow = hn::IfThenElse(is_nan, hn::Or(upper, hn::Set(U32(), 0x40U)), rounded);
    const hn::Rebind<uint16_t, F32> d16;
    hn::StoreU(hn::DemoteTo(d16, hn::BitCast(I32(), narrow)), d16, reinterpret_cast<uint16_t*>(to));
  }
  static constexpr size_t kItem = 2;
};

struct NarrowFp16 {
  static HWY_INLINE void store(VU32 bits, std::byte* to) {
    const VU32 magnitude = hn::And(bits, hn::Set(U32(), 0x7fffffffU));
    const VU32 sign = hn::And(hn::ShiftRight<16>(bits), hn::Set(U32(), 0x8000U));
    const VU32 rebiased = hn::Sub(magnitude, hn::Set(U32(), 112U << 23));
    const VU32 normal =
        hn::ShiftRight<13>(hn::Add(hn::Add(rebiased, hn::Set(U32(), 0xfffU)), even_bit(hn::ShiftRight<13>(magnitude))));
    // The unit of 0.5 is 2^-24, the step of fp16's denormals: the addition rounds to it.
    const VU32 denormal = hn::Sub(hn::BitCast(U32(), hn::Add(hn::BitCast(F32(), magnitude), hn::Set(F32(), 0.5F))),
                                  hn::Set(U32(), 0x3f000000U));
    const VU32 nan = hn::Or(hn::And(hn::ShiftRight<13>(magnitude), hn::Set(U32(), 0x1ffU)), hn::Set(U32(), 0x7e00U));
    VU32 narrow = hn::IfThenElse(hn::RebindMask(U32(), at_least(magnitude, 0x38800000)), normal, denormal);
    narrow = hn::IfThenElse(hn::RebindMask(U32(), at_least(magnitude, 0x47800000)), hn::Set(U32(), 0x7c00U), narrow);
    narrow = hn::IfThenElse(hn::RebindMask(U32(), at_least(magnitude, 0x7f800001)), nan, narrow);
    const hn::Rebind<uint16_t, F32> d16;
    hn::StoreU(hn::DemoteTo(d16, hn::BitCast(I32(), hn::Or(narrow, sign))), d16, reinterpret_cast<uint16_t*>(to));
  }
  static constexpr size_t kItem = 2;
};

struct NarrowF32 {
  static HWY_INLINE void store(VU32 bits, std::byte* to) { hn::StoreU(bits, U32(), reinterpret_cast<uint32_t*>(to)); }
  static constexpr size_t kItem = 4;
};

template <class Widen, class Narrow>
void cast_elements(const EncodeArgs& args) {
  const std::byte* from = args.source.data();
  std::byte* to = args.stored[0].data();
  const size_t count = args.source.size() / Widen::kItem;
  const size_t lanes = hn::Lanes(F32());
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    Narrow::store(Widen::load(from + i * Widen::kItem), to + i * Narrow::kItem);
  }
  if (i < count) {
    std::byte padded[kMaxLanes * Widen::kItem] = {};
    std::byte out[kMaxLanes * Narrow::kItem];
    std::memcpy(padded, from + i * Widen::kItem, (count - i) * Widen::kItem);
    Narrow::store(Widen::load(padded), out);
    std::memcpy(to + i * Narrow::kItem, out, (count - i) * Narrow::kItem);
  }
}

template <class Narrow>
void cast_to(const EncodeArgs& args, EncodeFunction reference) {
  switch (args.source_dtype) {
    case DType::kBF16:
      return cast_elements<WidenBf16, Narrow>(args);
    case DType::kF16:
      return cast_elements<WidenFp16, Narrow>(args);
    case DType::kF32:
      return cast_elements<WidenF32, Narrow>(args);
    default:
      return reference(args);
  }
}

void cast_to_bf16(const EncodeArgs& args) {
  cast_to<NarrowBf16>(args, reference::cast_to_bf16);
}
void cast_to_fp16(const EncodeArgs& args) {
  cast_to<NarrowFp16>(args, reference::cast_to_fp16);
}
void cast_to_fp32(const EncodeArgs& args) {
  cast_to<NarrowF32>(args, reference::cast_to_fp32);
}

#endif

}  // namespace qcache::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qcache::kernels {

void cast_to_bf16(const EncodeArgs& args) {
  QCACHE_DISPATCH(cast_to_bf16)(args);
}
void cast_to_fp16(const EncodeArgs& args) {
  QCACHE_DISPATCH(cast_to_fp16)(args);
}
void cast_to_fp32(const EncodeArgs& args) {
  QCACHE_DISPATCH(cast_to_fp32)(args);
}

void copy(const EncodeArgs& args) {
  if (!args.source.empty()) {
    std::memcpy(args.stored[0].data(), args.source.data(), args.source.size());
  }
}

}  // namespace qcache::kernels
#endif

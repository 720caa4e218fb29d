// bitsandbytes' nf4, fp4 and nf4 with double quantization: one absmax per 64 elements, two codes per byte, the first in
// the high half.
#include "core/quant/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/quant/bnb_kernels.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "core/quant/codes-inl.h"
#include "core/quant/kernels.h"
#include "core/quant/quantizer.h"
#include "core/quant/reference.h"
#include "core/quant/rows.h"
#include "core/quant/simd_dispatch.h"
#include "core/quant/units.h"

HWY_BEFORE_NAMESPACE();
namespace qcache::HWY_NAMESPACE {

#if QCACHE_SCALAR_TARGET

void encode_nf4(const EncodeArgs& args) {
  reference::encode_nf4(args);
}
void encode_fp4(const EncodeArgs& args) {
  reference::encode_fp4(args);
}
void encode_nf4_dq(const EncodeArgs& args) {
  reference::encode_nf4_dq(args);
}

#else

/// Codes of normalized values: the number of thresholds below each, in 32-bit lanes.
class Nf4Code {
 public:
  static constexpr reference::RowFunction kReferenceRow = reference::nf4_row;

#if HWY_TARGET == HWY_AVX2
  // A binary search over the 15 thresholds: each comparison adds one bit to the code so far, which selects
  // the next threshold.
  Nf4Code() {
    // Level 3 has 4 thresholds, level 4 has 8; repeated to the width of the widest vector.
    HWY_ALIGN float level3[kMaxLanes];
    HWY_ALIGN float level4[kMaxLanes];
    for (size_t i = 0; i < kMaxLanes; ++i) {
      level3[i] = kNf4Thresholds[4 * (i % 4) + 1];
      level4[i] = kNf4Thresholds[2 * (i % 8)];
    }
    level3_ = hn::Load(F32(), level3);
    level4_ = hn::Load(F32(), level4);
  }

  HWY_INLINE VI32 operator()(VF32 x) const {
    const auto upper = hn::Gt(x, hn::Set(F32(), kNf4Thresholds[7]));
    const VF32 level2 = hn::IfThenElse(upper, hn::Set(F32(), kNf4Thresholds[11]), hn::Set(F32(), kNf4Thresholds[3]));
    const VI32 code2 = next_bit(next_bit(hn::Zero(I32()), upper), hn::Gt(x, level2));
    const VI32 code3 = next_bit(code2, hn::Gt(x, lookup(level3_, code2)));
    return next_bit(code3, hn::Gt(x, lookup(level4_, code3)));
  }

 private:
  static HWY_INLINE VI32 next_bit(VI32 code, hn::Mask<F32> bit) {
    return hn::Sub(hn::Add(code, code), hn::BitCast(I32(), hn::VecFromMask(F32(), bit)));
  }
  static HWY_INLINE VF32 lookup(VF32 table, VI32 index) {
    return hn::TableLookupLanes(table, hn::IndicesFromVec(F32(), index));
  }

  VF32 level3_;
  VF32 level4_;
#else
  HWY_INLINE VI32 operator()(VF32 x) const {
    VI32 code = hn::Zero(I32());
    for (const float threshold : kNf4Thresholds) {
      code = hn::Sub(code, hn::BitCast(I32(), hn::VecFromMask(F32(), hn::Gt(x, hn::Set(F32(), threshold)))));
    }
    return code;
  }
#endif
};

class Fp4Code {
 public:
  static constexpr reference::RowFunction kReferenceRow = reference::fp4_row;

  HWY_INLINE VI32 operator()(VF32 x) const {
    const VF32 magnitude = hn::Abs(x);
    VI32 rank = hn::Zero(I32());
    for (const float threshold : kFp4Thresholds) {
      rank = hn::Sub(rank, hn::BitCast(I32(), hn::VecFromMask(F32(), hn::Gt(magnitude, hn::Set(F32(), threshold)))));
    }
    // kFp4Ascending: the second bit flips the third.
    const VI32 code = hn::Xor(rank, hn::ShiftLeft<1>(hn::And(rank, hn::Set(I32(), 2))));
    const VI32 negative = hn::BitCast(I32(), hn::VecFromMask(F32(), hn::Lt(x, hn::Zero(F32()))));
    return hn::Or(code, hn::And(negative, hn::Set(I32(), 8)));
  }
};

template <class Source, class Code>
void encode_row(const Code& code, const std::byte* row, size_t count, std::byte* codes, std::byte* absmax_out) {
  constexpr size_t kItem = sizeof(typename Source::Bits);
  const size_t step = 2 * hn::Lanes(F32());
  for (size_t first = 0; first < count; first += kNf4BlockElements) {
    const std::byte* block = row + first * kItem;
    std::byte* packed = codes + first / 2;
    std::byte* block_absmax = absmax_out + first / kNf4BlockElements * sizeof(float);
    const auto amax = amax_bits_whole<Source>(block, kNf4BlockElements);
    if (amax >= Source::kInfinity) {
      Code::kReferenceRow(Source::kDType, block, kNf4BlockElements, packed, block_absmax);
      continue;
    }
    const float absmax = Source::value(amax);
    std::memcpy(block_absmax, &absmax, sizeof absmax);
    const VF32 multiplier = hn::Set(F32(), nf4_multiplier(absmax));
    for (size_t i = 0; i < kNf4BlockElements; i += step) {
      const EvenOdd values = Source::load(block + i * kItem);
      const VI32 high = code(hn::Mul(values.even, multiplier));
      const VI32 low = code(hn::Mul(values.odd, multiplier));
      store_nibbles(hn::BitCast(U32(), low), hn::BitCast(U32(), high), packed + i / 2);
    }
  }
}

template <class Code>
void encode_rows(const EncodeArgs& args) {
  const Rows rows(args);
  const Code code;
  const bool done = with_source(args.source_dtype, [&](auto source) HWY_ATTR {
    rows.for_each([&](const std::byte* row, std::byte* codes, std::byte* absmax)
                      HWY_ATTR { encode_row<decltype(source)>(code, row, rows.elements, codes, absmax); });
  });
  if (!done) {
    rows.for_each([&](const std::byte* row, std::byte* codes, std::byte* absmax) {
      Code::kReferenceRow(args.source_dtype, row, rows.elements, codes, absmax);
    });
  }
}

void encode_nf4(const EncodeArgs& args) {
  encode_rows<Nf4Code>(args);
}
void encode_fp4(const EncodeArgs& args) {
  encode_rows<Fp4Code>(args);
}

void encode_nf4_dq(const EncodeArgs& args) {
  const Nf4Code code;
  const float offset = args.survey->mean();
  const bool done = with_source(args.source_dtype, [&](auto source) HWY_ATTR {
    for_each_nested(args, [&](const std::byte* from, uint64_t elements, std::byte* codes, std::byte* absmax_codes,
                              std::byte* nested) HWY_ATTR {
      float absmax[kNestedBlocks];
      encode_row<decltype(source)>(code, from, elements, codes, reinterpret_cast<std::byte*>(absmax));
      reference::nested_absmax(absmax, elements / kNf4BlockElements, offset, absmax_codes, nested);
    });
  });
  if (!done) {
    reference::encode_nf4_dq(args);
  }
}

#endif

}  // namespace qcache::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qcache::kernels {

void encode_nf4(const EncodeArgs& args) {
  QCACHE_DISPATCH(encode_nf4)(args);
}
void encode_fp4(const EncodeArgs& args) {
  QCACHE_DISPATCH(encode_fp4)(args);
}
void encode_nf4_dq(const EncodeArgs& args) {
  QCACHE_DISPATCH(encode_nf4_dq)(args);
}

}  // namespace qcache::kernels
#endif

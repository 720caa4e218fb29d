// What schemes want to know of a whole tensor before its first unit.
#include "core/quant/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/quant/survey_kernels.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "core/quant/codes-inl.h"
#include "core/quant/kernels.h"
#include "core/quant/quantizer.h"
#include "core/quant/reference.h"
#include "core/quant/simd_dispatch.h"

HWY_BEFORE_NAMESPACE();
namespace qcache::HWY_NAMESPACE {

#if QCACHE_SCALAR_TARGET

void survey_amax(DType source_dtype, std::span<const std::byte> source, Survey& survey) {
  reference::survey_amax(source_dtype, source, survey);
}
void survey_absmax_mean(DType source_dtype, std::span<const std::byte> source, Survey& survey) {
  reference::survey_absmax_mean(source_dtype, source, survey);
}

#else

void survey_amax(DType source_dtype, std::span<const std::byte> source, Survey& survey) {
  bool finite = false;
  with_source(source_dtype, [&](auto type) HWY_ATTR {
    using Source = decltype(type);
    const auto amax = amax_bits<Source>(source.data(), source.size() / sizeof(typename Source::Bits));
    finite = amax < Source::kInfinity;
    if (finite) {
      survey.amax = std::max(survey.amax, Source::value(amax));
    }
  });
  if (!finite) {
    reference::survey_amax(source_dtype, source, survey);
  }
}

void survey_absmax_mean(DType source_dtype, std::span<const std::byte> source, Survey& survey) {
  const bool done = with_source(source_dtype, [&](auto type) HWY_ATTR {
    using Source = decltype(type);
    constexpr size_t kBlockBytes = kNf4BlockElements * sizeof(typename Source::Bits);
    for (size_t first = 0; first < source.size(); first += kBlockBytes) {
      const auto amax = amax_bits_whole<Source>(source.data() + first, kNf4BlockElements);
      if (amax >= Source::kInfinity) {
        reference::survey_absmax_mean(source_dtype, source.subspan(first, kBlockBytes), survey);
      } else {
        survey.sum += Source::value(amax);
        ++survey.count;
      }
    }
  });
  if (!done) {
    reference::survey_absmax_mean(source_dtype, source, survey);
  }
}

#endif

}  // namespace qcache::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qcache::kernels {

void survey_amax(DType source_dtype, std::span<const std::byte> source, Survey& survey) {
  QCACHE_DISPATCH(survey_amax)(source_dtype, source, survey);
}
void survey_absmax_mean(DType source_dtype, std::span<const std::byte> source, Survey& survey) {
  QCACHE_DISPATCH(survey_absmax_mean)(source_dtype, source, survey);
}

}  // namespace qcache::kernels
#endif

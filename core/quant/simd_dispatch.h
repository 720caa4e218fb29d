#pragma once

// Included after Highway, by the kernel files and by tests that walk the instruction sets.

#include <hwy/highway.h>

#include <cstdint>
#include <string_view>
#include <vector>

namespace qcache {

// Which of its compilations a kernel runs as. Highway has a dispatch of its own, but in a library that every start of a
// program pays milliseconds for (findings/libhwy_static_initializer.sh): of Highway only headers are used.

/// The instruction sets of simd_targets.h, the best of each family last.
enum class SimdTarget : uint8_t { kBaseline, kNeon, kSse4, kAvx2 };

[[nodiscard]] std::string_view to_string(SimdTarget target);

/// Those that kernels were compiled for and that this machine runs, the best first.
[[nodiscard]] std::vector<SimdTarget> usable_simd_targets();

/// The one that kernels run as: the best, unless a test has chosen another. Any thread.
[[nodiscard]] SimdTarget simd_target();

/// For tests. `target` is one of usable_simd_targets().
void use_simd_target(SimdTarget target);

/// A function as it was compiled for each instruction set; null where it was not.
template <typename Function>
struct PerTarget {
  Function baseline;
  Function neon;
  Function sse4;
  Function avx2;

  [[nodiscard]] Function best() const {
    switch (simd_target()) {
      case SimdTarget::kNeon:
        return neon;
      case SimdTarget::kSse4:
        return sse4;
      case SimdTarget::kAvx2:
        return avx2;
      case SimdTarget::kBaseline:
        break;
    }
    return baseline;
  }
};

}  // namespace qcache

/// The compilation of `function`, which every target's namespace has, that runs best here. Where HWY_ONCE, in the
/// namespace around those.
#define QCACHE_DISPATCH(function)                                                                                \
  (PerTarget<decltype(&HWY_STATIC_DISPATCH(function))>{HWY_CHOOSE_FALLBACK(function), HWY_CHOOSE_NEON(function), \
                                                       HWY_CHOOSE_SSE4(function), HWY_CHOOSE_AVX2(function)}     \
       .best())

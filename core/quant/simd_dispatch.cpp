#include "core/quant/simd_targets.h"
// Before what walks the targets.
#include "core/quant/simd_dispatch.h"

#if HWY_ARCH_X86
#include <cpuid.h>
#endif

#include <atomic>

namespace qcache {
namespace {

#if HWY_ARCH_X86
// What Highway's header lets the compiler use for its target of this name.
bool runs_sse4() {
  return __builtin_cpu_supports("ssse3") != 0 && __builtin_cpu_supports("sse4.1") != 0 &&
         __builtin_cpu_supports("sse4.2") != 0 && __builtin_cpu_supports("pclmul") != 0 &&
         __builtin_cpu_supports("aes") != 0;
}

bool runs_avx2() {
  // Compilers differ in whether they know these two by name.
  constexpr unsigned kExtended = 0x80000001U;
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  const bool f16c = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
  const bool lzcnt = __get_cpuid(kExtended, &a, &b, &c, &d) != 0 && (c & bit_LZCNT) != 0;
  return runs_sse4() && f16c && lzcnt && __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0 &&
         __builtin_cpu_supports("bmi") != 0 && __builtin_cpu_supports("bmi2") != 0;
}
#endif

std::atomic<SimdTarget>& target_in_use() {
  static std::atomic<SimdTarget> target = usable_simd_targets().front();
  return target;
}

}  // namespace

std::string_view to_string(SimdTarget target) {
  switch (target) {
    case SimdTarget::kNeon:
      return "NEON";
    case SimdTarget::kSse4:
      return "SSE4";
    case SimdTarget::kAvx2:
      return "AVX2";
    case SimdTarget::kBaseline:
      break;
  }
  return "baseline";
}

std::vector<SimdTarget> usable_simd_targets() {
  std::vector<SimdTarget> targets;
#if HWY_ARCH_X86
  if ((HWY_TARGETS & HWY_AVX2) != 0 && runs_avx2()) {
    targets.push_back(SimdTarget::kAvx2);
  }
  if ((HWY_TARGETS & HWY_SSE4) != 0 && runs_sse4()) {
    targets.push_back(SimdTarget::kSse4);
  }
#endif
#if HWY_TARGETS & HWY_NEON
  targets.push_back(SimdTarget::kNeon);  // part of what every such machine runs
#endif
#if HWY_TARGETS & (HWY_SCALAR | HWY_EMU128)
  targets.push_back(SimdTarget::kBaseline);
#endif
  if (targets.empty()) {
    targets.push_back(SimdTarget::kBaseline);  // what the compiler was told that every machine runs
  }
  return targets;
}

SimdTarget simd_target() {
  return target_in_use().load(std::memory_order_relaxed);
}

void use_simd_target(SimdTarget target) {
  target_in_use().store(target, std::memory_order_relaxed);
}

}  // namespace qcache

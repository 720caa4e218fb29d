#pragma once

#include "core/quant/simd_targets.h"
// The targets that the kernels were compiled for come first.
#include <string>

#include "core/quant/simd_dispatch.h"
#include "gtest/gtest.h"

namespace qcache {

/// Runs `check` once with the kernels of each instruction set that this build has and this machine runs.
template <typename Check>
void on_all_targets(const Check& check) {
  const SimdTarget before = simd_target();
  for (const SimdTarget target : usable_simd_targets()) {
    SCOPED_TRACE("instruction set " + std::string(to_string(target)));
    use_simd_target(target);
    check();
  }
  use_simd_target(before);
}

}  // namespace qcache

#pragma once

#include "core/quant/simd_targets.h"
// The targets that the kernels were compiled for come first.
#include <hwy/highway.h>
#include <hwy/targets.h>

#include <string>

#include "gtest/gtest.h"

namespace qcache {

/// Runs `check` once with the kernels of each instruction set that this build has and this machine runs.
template <typename Check>
void on_all_targets(const Check& check) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    SCOPED_TRACE(std::string("instruction set ") + hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(target);
    check();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().DeInit();
}

}  // namespace qcache

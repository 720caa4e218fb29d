#pragma once

#include <memory>

#include "core/layout/safetensors_layout.h"
#include "core/layout/torch_zip.h"

namespace qcache {

/// As the functions of the same name, for tests that have the model as a value: the plan holds a copy of it.
inline Result<std::shared_ptr<const LayoutPlan>> plan_torch_zip(const SourceModel& model, const Scheme& scheme,
                                                                const TorchZipOptions& options = {}) {
  return plan_torch_zip(std::make_shared<const SourceModel>(model), scheme, options);
}
inline Result<std::shared_ptr<const LayoutPlan>> plan_safetensors(const SourceModel& model, const Scheme& scheme,
                                                                  const Contents& contents = {}) {
  return plan_safetensors(std::make_shared<const SourceModel>(model), scheme, contents);
}

}  // namespace qcache

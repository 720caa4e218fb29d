#include "core/layout/adapter_folder.h"
#include "core/layout/containers.h"
#include "core/layout/safetensors_layout.h"

namespace qcache {
namespace {

Result<std::shared_ptr<const LayoutPlan>> plan(const std::shared_ptr<const SourceModel>& model, const Scheme& scheme,
                                               uint32_t rank) {
  return plan_safetensors(model, scheme, {.weights = false, .rank = rank, .factor_prefix = factor_prefix(*model)});
}

}  // namespace

/// The LoRA factors in the folder `<rank>/lora/`, for PEFT or diffusers.
const Container& container_adapter() {
  static constexpr Container kContainer = {.path = "{rank}/lora/adapter_model.safetensors",
                                           .pipeline_path = "{rank}/lora/pytorch_lora_weights.safetensors",
                                           .suffix = ".lora.safetensors",
                                           .ranks = ContainerRanks::kAboveZero,
                                           .holds_weights = false,
                                           .plan = plan};
  return kContainer;
}

}  // namespace qcache

#include "core/layout/containers.h"
#include "core/layout/safetensors_layout.h"

namespace qcache {
namespace {

Result<std::shared_ptr<const LayoutPlan>> plan(const std::shared_ptr<const SourceModel>& model, const Scheme& scheme,
                                               uint32_t /*rank*/) {
  return plan_safetensors(model, scheme);
}

}  // namespace

/// The weights in the folder `<rank>/`, which from_pretrained loads.
const Container& container_folder_weights() {
  static constexpr Container kContainer = {.path = "{rank}/model.safetensors",
                                           .pipeline_path = "{rank}/{component}/diffusion_pytorch_model.safetensors",
                                           .suffix = ".safetensors",
                                           .ranks = ContainerRanks::kShared,
                                           .plan = plan};
  return kContainer;
}

}  // namespace qcache

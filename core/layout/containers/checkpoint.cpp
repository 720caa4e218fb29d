#include "core/layout/containers.h"
#include "core/layout/torch_zip.h"

namespace qcache {
namespace {

Result<std::shared_ptr<const LayoutPlan>> plan(const std::shared_ptr<const SourceModel>& model, const Scheme& scheme,
                                               uint32_t rank) {
  TorchZipOptions options;
  options.rank = rank;
  return plan_torch_zip(model, scheme, options);
}

std::optional<std::string> refusal(const SourceModel& model, const Scheme& /*scheme*/) {
  return why_no_checkpoint(model);
}

}  // namespace

/// A torch zip checkpoint with the weights and the factors of its rank.
const Container& container_checkpoint() {
  static constexpr Container kContainer = {
      .path = "{rank}.bin", .pipeline_path = "{rank}.bin", .suffix = ".bin", .plan = plan, .refusal = refusal};
  return kContainer;
}

}  // namespace qcache

#pragma once

#include <memory>
#include <optional>
#include <string>

#include "core/layout/layout_plan.h"

namespace qcache {

/// Where records of the checkpoint start. Tests use the small values of the format text's worked example.
struct TorchZipOptions {
  uint32_t data_alignment = 4096;    ///< of each tensor's first byte
  uint32_t header_alignment = 4096;  ///< of each tensor's local header; 0: right after the previous record
  bool isolate_directory = true;     ///< the central directory starts on its own page
  bool describe = true;              ///< add the record `archive/qcache.json`
  uint32_t rank = 0;                 ///< of the LoRA factors beside the weights; 0: none
};

/// Plans `model` in `scheme` as a torch zip checkpoint ("mode T"): what `torch.load` reads, with true CRCs
/// that are known before any tensor byte is (docs/FORMATS.md tells how). Fails with kUnsupported where the
/// scheme refuses the model or torch has no type for one of its tensors, and kInvalidModel where a stored name occurs
/// twice or the file would exceed 2^63 bytes.
Result<std::shared_ptr<const LayoutPlan>> plan_torch_zip(const std::shared_ptr<const SourceModel>& model,
                                                         const Scheme& scheme, const TorchZipOptions& options = {});

/// Why `model` has no torch checkpoint in any scheme (one sentence): it holds a type that torch does not know.
[[nodiscard]] std::optional<std::string> why_no_checkpoint(const SourceModel& model);

}  // namespace qcache

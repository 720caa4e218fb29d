#pragma once

#include <memory>

#include "core/layout/groups.h"
#include "core/layout/layout_plan.h"

namespace qcache {

/// Plans `contents` of `model` in `scheme` as one safetensors file.
///
/// The format allows no holes between tensors, and loaders hand out pointers into the mapped file, on which some
/// kernels need 16-byte alignment: so the header is padded to a page, tensors whose length is a multiple of 64 come
/// first in the model's order, and the rest follow by falling power of two. Fails with kUnsupported where the scheme
/// refuses the model or the header would be longer than readers accept (100 MB),
/// and kInvalidModel where a stored name occurs twice or is "__metadata__", or the file would exceed 2^63 bytes.
Result<std::shared_ptr<const LayoutPlan>> plan_safetensors(const std::shared_ptr<const SourceModel>& model,
                                                           const Scheme& scheme, const Contents& contents = {});

}  // namespace qcache

#pragma once

#include <span>

#include "core/base/result.h"
#include "core/engine/source_reader.h"
#include "core/quant/encoding.h"

namespace qcache {

/// What storing a weight as `encoding` loses: the weight minus what its stored form stands for, both in fp32. `out`
/// has one value per element, row-major. Differences that are not finite (the weight holds infinities or NaN) are 0.
/// `survey` is the tensor's, where the encoding has one. Fails as SourceReader does. Pure but for reading.
Status compute_residual(const SourceReader& source, const TensorInfo& tensor, const Encoding& encoding,
                        const Survey* survey, std::span<float> out);

}  // namespace qcache

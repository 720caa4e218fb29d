#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "core/engine/source_reader.h"
#include "core/engine/surveys.h"
#include "core/layout/layout_plan.h"
#include "core/store/file_digest.h"
#include "core/store/quality.h"

namespace qcache {

/// The units of a tensor that stand for all of it: some 256 Ki elements in `runs` runs, spread evenly from its first
/// unit to its last; all units where the tensor is smaller. Where units are large there are fewer runs, but two at
/// least. REQUIRES: runs >= 2.
[[nodiscard]] std::vector<UnitRange> quality_sample(const Encoding& encoding, uint64_t runs = 16);

/// How near the quantized weights in a complete file `fd` of `plan` are to their source, one entry for each in the
/// file's order. Decodes what is on disk, a sample of each weight: decoders are plain loops, several times slower than
/// the kernels, so this is for the background and not for the way of a read.
///
/// Thread-safe. Fails as SourceReader and Env do, and with kInterrupted once `keep_going` (asked before each weight)
/// says no. Nothing is learned from a source that changed: all of it is an error then.
Result<std::vector<TensorQuality>> measure_quality(Env& env, const LayoutPlan& plan, const SourceReader& source,
                                                   Surveys& surveys, int fd, const KeepGoing& keep_going);

/// The same for a file that is known later; owns what it needs but `env`.
using MeasureQuality = std::function<Result<std::vector<TensorQuality>>(int fd, const KeepGoing& keep_going)>;
[[nodiscard]] MeasureQuality quality_probe(Env& env, std::shared_ptr<const LayoutPlan> plan,
                                           std::shared_ptr<const SourceReader> source,
                                           std::shared_ptr<Surveys> surveys);

}  // namespace qcache

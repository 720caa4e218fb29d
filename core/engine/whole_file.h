#pragma once

#include <functional>
#include <memory>

#include "core/engine/artifact_name.h"
#include "core/engine/source_reader.h"
#include "core/engine/stats.h"
#include "core/model/source_model.h"
#include "core/store/record.h"
#include "core/store/store.h"

namespace qcache {

/// Opens the source that a file is made from, where it has to be made.
using OpenSource = std::function<Result<std::unique_ptr<SourceReader>>(Stats& stats)>;

/// Makes the whole file `name` of `model` and seals it, in this thread and as many more as there are cores, and returns
/// its record; returns at once where it is sealed already. Mounts that make the same file meanwhile share the work, as
/// they do among each other. For programs without an Engine. REQUIRES: the model's identity is settled.
///
/// Fails as a read of the file in a mount does; what was made by then stays, and the next call goes on from there.
Result<Record> make_whole_file(Store& store, ArtifactName name, const std::shared_ptr<const SourceModel>& model,
                               const OpenSource& open_source);

}  // namespace qcache

#pragma once

#include <memory>
#include <string>

#include "core/base/env.h"
#include "core/base/result.h"
#include "core/model/source_model.h"

namespace qcache {

/// The name under which a mount of the model folder `path` (links resolved) shows it: that of the folder, or of the
/// repo in a hub cache.
[[nodiscard]] std::string model_name_of(Env& env, const std::string& path);

/// The model in folder `path` as it is now, with a settled identity: waits (20 ms on most filesystems, at most 2 s) for
/// files younger than their clock's granularity. Null where the folder holds no weights, or there is none.
/// kSourceChanged where the files are still being written.
Result<std::shared_ptr<const SourceModel>> read_settled_model(Env& env, const std::string& path,
                                                              const std::string& name);

}  // namespace qcache

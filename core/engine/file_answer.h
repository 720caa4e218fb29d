#pragma once

#include "core/base/env.h"
#include "core/engine/artifact.h"
#include "core/engine/stats.h"

namespace qcache {

/// Answers a read of a file that is complete from its bytes on disk, at once. REQUIRES: the range lies in the file.
void answer_from_file(Env& env, Stats& stats, int fd, ByteRange range, const ReadCallback& callback);

}  // namespace qcache

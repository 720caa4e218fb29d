#pragma once

#include "core/base/env.h"

namespace qcache {

/// Whether /etc/fuse.conf lets users without privileges mount with allow_other (fuse(8)).
[[nodiscard]] bool user_may_allow_other(Env& env);

}  // namespace qcache

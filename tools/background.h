#pragma once

#include <functional>

#include "core/base/result.h"

namespace qcache {

/// Runs `serve` in a process of its own, detached from the terminal, and returns when that calls `ready` (success) or
/// ends before it (its error). Call it while the process has one thread. The error keeps its kind and message.
Status run_in_background(const std::function<Status(const std::function<void()>& ready)>& serve);

}  // namespace qcache

#pragma once

#include "core/base/result.h"

namespace qcache {

/// The errno by which a failure reaches an application: the only place where kinds become numbers.
///
/// ESTALE for a source that changed: the kernel looks the name up again and opens what is there now, so that an open
/// never fails for this reason; only a read of a file that was open before does.
[[nodiscard]] int errno_of(const Error& error);

}  // namespace qcache

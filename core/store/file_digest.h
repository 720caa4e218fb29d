#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "core/base/digest.h"
#include "core/base/env.h"
#include "core/base/result.h"

namespace qcache {

/// Asked between pieces of a long hash; false ends it with kInterrupted. Empty: always go on.
using KeepGoing = std::function<bool()>;

/// The SHA-256 of a file that must be `size_bytes` long; nothing where it is not.
Result<std::optional<Sha256Digest>> digest_of_file(Env& env, int fd, uint64_t size_bytes, const KeepGoing& keep_going);

}  // namespace qcache

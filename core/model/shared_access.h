#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>
#include <string>

namespace qcache {

/// Where a file or folder of a model lies, and what its mode says.
struct SourceSpot {
  std::string real;  ///< links resolved
  mode_t mode = 0;
  uint32_t gid = 0;
};

/// What others than the owner may do: permission bits of the group and of others, and which group.
struct SharedAccess {
  mode_t bits = 0;
  uint32_t gid = 0;
};

/// The permission bits of one file or folder on the way to what is shared.
struct AccessBits {
  mode_t mode = 0;
  uint32_t gid = 0;
};

/// The widest permissions, in the form that a mode has, that give nobody what `things`, all of them, and the `folders`
/// that have to be passed to get there do not give him. Where groups differ one of them gets its bits, as far as the
/// rest gives them to everybody. Nothing for no things. Pure.
[[nodiscard]] SharedAccess shared_access(std::span<const AccessBits> folders, std::span<const AccessBits> things);

}  // namespace qcache

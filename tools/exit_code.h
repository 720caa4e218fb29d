#pragma once

#include "core/base/result.h"

namespace qcache {

/// What the commands return to the shell. Numbers are a promise to scripts (README, "Exit codes"): never renumber.
enum class ExitCode : int {
  kOk = 0,
  kFailure = 1,           ///< anything not named below
  kUsage = 2,             ///< the command line is wrong
  kNotFound = 3,          ///< no such model, dtype, file or mount
  kModelUnusable = 4,     ///< the model is there but cannot be served
  kCacheUnusable = 5,     ///< the cache directory cannot be used: permission, disk full, newer format
  kMountFailed = 6,       ///< the mount could not be made or taken down, or is dead
  kBusy = 7,              ///< in use
  kIntegrityFailure = 8,  ///< verify found files that differ from their records
  kInterrupted = 130,     ///< SIGINT; 143 and 129 are SIGTERM and SIGHUP, as a shell says them
  // What mount(8) hands on from its helper, so these are its own numbers.
  kMountHelperUsage = 1,    ///< incorrect invocation
  kMountHelperFailed = 32,  ///< the mount failed
};

/// Whether it is what every access to a mount answers whose daemon is gone.
[[nodiscard]] bool is_dead_mount(const Error& error);

[[nodiscard]] ExitCode exit_code_of(const Error& error);

}  // namespace qcache

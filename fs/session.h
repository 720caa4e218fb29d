#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "core/engine/engine.h"

namespace qcache {

struct MountOptions {
  EngineOptions engine;
  std::string mount_point;
  bool passthrough = true;  ///< where the kernel and libfuse can
  bool allow_other = false;
  bool debug = false;  ///< log every request to standard error
  /// Told to end, for how long to serve programs that depend on this process for the files that they have open.
  std::chrono::seconds linger{60};
  /// Further options for the kernel mount, such as "nosuid" or "context=...", passed on as they are.
  std::vector<std::string> kernel_options;
};

/// Mounts and serves until unmounted or told to end (SIGTERM, SIGINT, SIGHUP). Told to end while files are open that
/// only this process can serve, it takes the mount off its mount point at once and serves them for a while longer; told
/// again, it ends. `on_ready` runs once, when the mount can
/// be used. Clears a dead mount (of a killed daemon) off the mount point first. Call it in the process that stays:
/// threads and the catalog are opened here. Fails before `on_ready`, with one sentence, where the mount cannot be made.
Status serve_mount(Env& env, const MountOptions& options, const std::function<void()>& on_ready);

/// Takes a mount down; `lazy` detaches it even while files are open. Works for dead mounts too.
Status unmount(const std::string& mount_point, bool lazy);

}  // namespace qcache

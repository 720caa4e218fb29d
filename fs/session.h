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
  bool debug = false;     ///< log every request to standard error
  bool over = false;      ///< mount also where something is mounted already, and cover it
  bool nonempty = false;  ///< mount also on a folder that is not empty, and hide what is in it
  unsigned max_read = 0;  ///< how many bytes one read request may ask for; 0: what the kernel wants
  /// Told to end, for how long to serve programs that depend on this process for the files that they have open.
  std::chrono::seconds linger{60};
  /// Further options for the kernel mount, such as "nosuid" or "context=...", passed on as they are.
  std::vector<std::string> kernel_options;
};

/// Mounts and serves until unmounted or told to end (SIGTERM, SIGINT, SIGHUP). Told to end while files are open that
/// only this process can serve, it takes the mount off its mount point at once and serves them for a while longer; told
/// again, it ends. `on_ready` runs once, in a thread of its own, when the mount has answered a request. Clears a dead
/// mount (of a killed daemon) off the mount point first. Call it in the process that stays: threads and the catalog are
/// opened here.
///
/// Fails with one sentence, before `on_ready` where the mount cannot be made, and after it where it ends in any other
/// way than those above. Errors of the cache directory keep their kinds; kBusy: something is mounted there already;
/// kInvalidArgument: the options; all else is kIo.
/// `on_prepared` runs before anything is made, once it is known that it may be: its error ends the mount.
Status serve_mount(Env& env, const MountOptions& options, const std::function<Status()>& on_prepared,
                   const std::function<void()>& on_ready);

/// Takes the qcache mount on `mount_point` down, and nothing else that may be mounted there; `lazy` detaches it even
/// while files are open. Works for dead mounts too. kNotFound: there is none; kBusy: files in it are open; kPermission:
/// it is another user's.
Status unmount(Env& env, const std::string& mount_point, bool lazy);

}  // namespace qcache

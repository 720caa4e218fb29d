#pragma once

#include <string>

#include "core/base/env.h"
#include "fs/fuse_api.h"

namespace qcache {

/// How long the kernel waits for the answer to one request before it ends the whole mount, in seconds (0: for ever):
/// what an operator has set for all mounts (sysctl fs.fuse.*, Linux 6.15). A read of a slow model takes as long as it
/// takes, and is no reason to take the mount from everybody else.
struct RequestTimeouts {
  unsigned by_default = 0;  ///< for filesystems that ask for none of their own
  unsigned at_most = 0;     ///< whatever they ask for

  static RequestTimeouts read(Env& env);
  /// Asks for the longest that there is. Returns what the kernel grants: 0 where it waits for ever.
  [[nodiscard]] unsigned ask(fuse_conn_info* connection) const;
};

/// Whether it is less than a filesystem could ask for, and one slow read may end the mount.
[[nodiscard]] bool is_short_request_timeout(unsigned seconds);

}  // namespace qcache

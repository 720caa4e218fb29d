#pragma once

namespace qcache {

/// Tells systemd that a Type=notify service is ready: sends "READY=1" to $NOTIFY_SOCKET (sd_notify(3)). Does nothing
/// where the variable is not set.
void notify_service_ready();

}  // namespace qcache

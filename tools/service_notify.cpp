#include "tools/service_notify.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <string_view>

#include "core/base/log.h"
#include "core/base/unique_fd.h"

namespace qcache {

void notify_service_ready() {
  const char* path = std::getenv("NOTIFY_SOCKET");  // NOLINT(concurrency-mt-unsafe): nobody sets variables here
  sockaddr_un address{};
  if (path == nullptr) {
    return;
  }
  const std::string_view name(path);
  if (name.size() < 2 || name.size() >= sizeof address.sun_path) {
    spdlog::warn("NOTIFY_SOCKET is not a usable path: systemd is not told that the mount is ready");
    return;
  }
  address.sun_family = AF_UNIX;
  std::copy(name.begin(), name.end(), std::begin(address.sun_path));
  if (name[0] == '@') {
    address.sun_path[0] = '\0';  // an abstract socket
  }
  const UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  constexpr std::string_view kMessage = "READY=1";
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
  if (::sendto(socket.get(), kMessage.data(), kMessage.size(), MSG_NOSIGNAL, reinterpret_cast<sockaddr*>(&address),
               length) < 0) {
    spdlog::warn("cannot tell systemd that the mount is ready");
  }
}

}  // namespace qcache

#include "core/base/message.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace qcache {
namespace {

/// Room for one descriptor beside a message, and the message itself.
struct Envelope {
  explicit Envelope(std::span<std::byte> bytes) : content{bytes.data(), bytes.size()} {
    header.msg_iov = &content;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
  }
  ~Envelope() = default;
  Envelope(const Envelope&) = delete;
  Envelope& operator=(const Envelope&) = delete;

  iovec content;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr header{};
};

}  // namespace

bool send_message(int socket, std::span<const std::byte> bytes, int fd) {
  // sendmsg() only reads; its structure serves recvmsg() too, which writes.
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-const-cast)
  Envelope envelope({const_cast<std::byte*>(bytes.data()), bytes.size()});
  if (fd >= 0) {
    cmsghdr* const attached = CMSG_FIRSTHDR(&envelope.header);
    attached->cmsg_level = SOL_SOCKET;
    attached->cmsg_type = SCM_RIGHTS;
    attached->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(attached), &fd, sizeof fd);
  } else {
    envelope.header.msg_controllen = 0;
  }
  ssize_t sent = -1;
  do {
    sent = ::sendmsg(socket, &envelope.header, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent == static_cast<ssize_t>(bytes.size());
}

std::optional<ReceivedMessage> receive_message(int socket, std::span<std::byte> into) {
  Envelope envelope(into);
  ssize_t got = -1;
  do {
    got = ::recvmsg(socket, &envelope.header, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got <= 0) {
    return std::nullopt;
  }
  ReceivedMessage out;
  out.size = static_cast<size_t>(got);
  if (const cmsghdr* const attached = CMSG_FIRSTHDR(&envelope.header);
      attached != nullptr && attached->cmsg_level == SOL_SOCKET && attached->cmsg_type == SCM_RIGHTS) {
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(attached), sizeof fd);
    out.fd.reset(fd);
  }
  return out;
}

}  // namespace qcache

#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "core/base/unique_fd.h"

namespace qcache {

// Messages over a SOCK_SEQPACKET socket between two processes of ours. Signals that interrupt are waited out; nothing
// here raises SIGPIPE.

/// Sends one message, with a copy of descriptor `fd` where that is not -1. False where the other end is gone.
[[nodiscard]] bool send_message(int socket, std::span<const std::byte> bytes, int fd = -1);

/// A message that came: its size (at most that of the buffer), and the descriptor that came with it, if any.
struct ReceivedMessage {
  size_t size = 0;
  UniqueFd fd;
};
/// Waits for one message. Nothing where the other end is gone.
[[nodiscard]] std::optional<ReceivedMessage> receive_message(int socket, std::span<std::byte> into);

}  // namespace qcache

// qcache-worker: computes LoRA factors for the daemon (core/engine/factor_protocol.h). Its standard input is the
// socket; it ends when the other end is closed. It sees matrices and nothing else: no names, no files.

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <limits>
#include <optional>
#include <string>

#include "core/base/checked.h"
#include "core/base/unique_fd.h"
#include "core/engine/factor_protocol.h"
#include "core/torch/low_rank.h"

namespace qcache {
namespace {

enum WorkerExit { kNoMoreRequests = 0, kBadRequest = 2, kSocketFailed = 3 };

struct Received {
  FactorRequest request;
  UniqueFd memory;
};

/// Nothing where the daemon has closed its end. Ends the process where what came is no request.
std::optional<Received> receive_request() {
  Received out;
  iovec bytes{&out.request, sizeof out.request};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t got = -1;
  do {
    got = ::recvmsg(STDIN_FILENO, &message, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got == 0) {
    return std::nullopt;
  }
  const cmsghdr* const header = CMSG_FIRSTHDR(&message);
  if (got != static_cast<ssize_t>(sizeof out.request) || header == nullptr || header->cmsg_type != SCM_RIGHTS) {
    std::fputs("qcache-worker is started by qcache and has no use by itself\n", stderr);
    std::exit(kBadRequest);
  }
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
  out.memory.reset(fd);
  return out;
}

/// Empty where the factors are in the memory, else why not.
std::string answer(const FactorRequest& request, int memory) {
  if (request.version != FactorRequest::kVersion) {
    return "it is of another version than qcache: install both together";
  }
  const auto matrix = checked_mul(request.rows, request.columns);
  const auto sides = checked_add(request.rows, request.columns);
  const auto factors = sides ? checked_mul(*sides, request.rank) : std::nullopt;
  const auto floats = matrix && factors ? checked_add(*matrix, *factors) : std::nullopt;
  const auto bytes = floats ? checked_mul(*floats, sizeof(float)) : std::nullopt;
  struct stat stat {};
  if (!bytes || *bytes == 0 || ::fstat(memory, &stat) != 0 || static_cast<uint64_t>(stat.st_size) < *bytes) {
    return "it was given less memory than the matrix needs";
  }
  void* const mapped = ::mmap(nullptr, *bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
  if (mapped == MAP_FAILED) {
    return "it cannot map the matrix";
  }
  const std::span<float> values(static_cast<float*>(mapped), *floats);
  std::string failure;
  try {
    const std::span<float> rest = values.subspan(*matrix);
    low_rank_factors(values.first(*matrix), request.rows, request.columns, request.rank, request.set_size, request.seed,
                     {rest.first(request.rank * request.columns), rest.subspan(request.rank * request.columns)});
  } catch (const std::exception& error) {
    failure = error.what();
    failure.resize(std::min(failure.size(), failure.find('\n')));  // libtorch appends a stack trace
  }
  ::munmap(mapped, *bytes);
  return failure;
}

int serve() {
  // Should memory run out, it is this process that goes, and not the mount.
  std::ofstream("/proc/self/oom_score_adj") << "1000";
  use_one_thread();
  while (const auto received = receive_request()) {
    const std::string failure = answer(received->request, received->memory.get());
    FactorReply reply;
    reply.done = failure.empty() ? 1 : 0;
    failure.copy(reply.reason.data(), reply.reason.size() - 1);
    if (::send(STDIN_FILENO, &reply, sizeof reply, MSG_NOSIGNAL) != static_cast<ssize_t>(sizeof reply)) {
      return kSocketFailed;
    }
  }
  return kNoMoreRequests;
}

}  // namespace
}  // namespace qcache

int main() {
  return qcache::serve();
}

// qcache-worker: computes LoRA factors for the daemon (core/engine/factor_protocol.h). Its standard input is the
// socket; it ends when the other end is closed. It sees matrices and nothing else: no names, no files.

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <fstream>
#include <span>
#include <string>

#include "core/base/checked.h"
#include "core/base/message.h"
#include "core/engine/factor_protocol.h"
#include "core/torch/low_rank.h"

namespace qcache {
namespace {

enum WorkerExit { kNoMoreRequests = 0, kBadRequest = 2, kSocketFailed = 3 };

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
  struct stat input {};
  if (::fstat(STDIN_FILENO, &input) != 0 || !S_ISSOCK(input.st_mode)) {
    std::fputs("qcache-worker is started by qcache and has no use by itself\n", stderr);
    return kBadRequest;
  }
  // Should memory run out, it is this process that goes, and not the mount.
  std::ofstream("/proc/self/oom_score_adj") << "1000";
  use_one_thread();
  FactorRequest request;
  while (const auto received = receive_message(STDIN_FILENO, std::as_writable_bytes(std::span(&request, 1)))) {
    if (received->size != sizeof request || !received->fd.valid()) {
      return kBadRequest;
    }
    const std::string failure = answer(request, received->fd.get());
    FactorReply reply;
    reply.done = failure.empty() ? 1 : 0;
    failure.copy(reply.reason.data(), reply.reason.size() - 1);
    if (!send_message(STDIN_FILENO, std::as_bytes(std::span(&reply, 1)))) {
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

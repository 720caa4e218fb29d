#include "core/engine/factor_workers.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <limits>
#include <optional>

#include "core/base/contain_exceptions.h"
#include "core/base/log.h"
#include "core/base/message.h"
#include "core/base/units.h"
#include "core/engine/shared_floats.h"

namespace qcache {
namespace {

constexpr std::chrono::seconds kIdleTime{30};

// Measured, with some to spare: a worker with libtorch loaded, and how many matrices of directions it has at its peak.
constexpr uint64_t kWorkerBytes = uint64_t{192} << 20;
constexpr uint64_t kMatricesOfDirections = 12;
constexpr uint64_t kMoreDirections = 10;  // kOversampling of low_rank.cpp

/// Nothing where the worker is gone, or is no worker.
std::optional<FactorReply> ask(int socket, const FactorRequest& request, int memory) {
  FactorReply reply;
  if (!send_message(socket, std::as_bytes(std::span(&request, 1)), memory)) {
    return std::nullopt;
  }
  const auto received = receive_message(socket, std::as_writable_bytes(std::span(&reply, 1)));
  reply.reason.back() = '\0';
  return received && received->size == sizeof reply ? std::optional(reply) : std::nullopt;
}

std::vector<std::string> worker_environment() {
  // With one thread the order of additions, and so the result, does not depend on the number of cores. Several workers
  // keep the cores busy.
  std::vector<std::string> out = {"OPENBLAS_NUM_THREADS=1", "OMP_NUM_THREADS=1"};
  for (char* const* entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    if (!text.starts_with("OPENBLAS_NUM_THREADS=") && !text.starts_with("OMP_NUM_THREADS=")) {
      out.emplace_back(text);
    }
  }
  return out;
}

/// Starts `program` with `socket` as its standard input and nowhere to write. Returns an errno.
int spawn(const std::string& program, int socket, pid_t& pid) {
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, socket, STDIN_FILENO);
  ::posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t none;
  sigset_t all;
  ::sigemptyset(&none);
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::vector<std::string> variables = worker_environment();
  std::vector<char*> environment;
  environment.reserve(variables.size() + 1);
  for (std::string& variable : variables) {
    environment.push_back(variable.data());
  }
  environment.push_back(nullptr);
  std::string name = program;
  const std::array<char*, 2> arguments = {name.data(), nullptr};
  const int error = ::posix_spawn(&pid, program.c_str(), &actions, &attributes, arguments.data(), environment.data());
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  return error;
}

}  // namespace

std::vector<std::string> worker_programs() {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  return {(folder / "qcache-worker").string(),
          (folder / "../libexec/qcache/qcache-worker").lexically_normal().string()};
}

FactorWorkers::~FactorWorkers() {
  stop();
}

uint64_t factor_memory(const FactorRequest& request) {
  // Of low_rank_factors(): the matrix is read where it lies; what it makes are matrices of one of its sides by the
  // directions that are searched.
  constexpr uint64_t kFarTooMany = uint64_t{1} << 48;  // elements; beyond, sums would overflow
  if (request.rows > kFarTooMany / std::max<uint64_t>(1, request.columns)) {
    return std::numeric_limits<uint64_t>::max() / 2;
  }
  const uint64_t directions = std::min({request.set_size + kMoreDirections, request.rows, request.columns});
  const uint64_t shared = shared_floats(request.rows, request.columns, request.rank);
  const uint64_t own = kMatricesOfDirections * directions * (request.rows + request.columns);
  return kWorkerBytes + sizeof(float) * (shared + own);
}

Status FactorWorkers::compute(const FactorRequest& request, const std::function<Status(std::span<float>)>& fill,
                              std::span<std::byte> a, std::span<std::byte> b) {
  const uint64_t bytes = factor_memory(request);
  QCACHE_TRY(reserve(bytes));
  Status done = compute_reserved(request, fill, a, b);
  release(bytes);
  return done;
}

Status FactorWorkers::reserve(uint64_t bytes) {
  constexpr uint64_t kShare = 4;
  std::vector<Worker> ended;
  {
    const MutexLock lock(mutex_);
    for (;;) {
      if (stopping_) {
        return fail(ErrorKind::kInterrupted, "the filesystem is being unmounted");
      }
      const uint64_t allowed = usable_(reserved_) / kShare;
      if (bytes + reserved_ <= allowed) {
        // Workers that wait for work hold memory, too; the new computation may have one of them.
        const uint64_t idle_allowed = 1 + ((allowed - reserved_ - bytes) / kWorkerBytes);
        while (idle_.size() > idle_allowed) {
          ended.push_back(std::move(idle_.back()));
          idle_.pop_back();
        }
        reserved_ += bytes;
        break;
      }
      if (reserved_ == 0) {
        return fail(ErrorKind::kIo,
                    fmt::format("{} of memory are needed, and ranks above 0 may take a quarter of what qcache can use, "
                                "{} now: end other programs, or raise its memory limit",
                                format_size(bytes), format_size(allowed)));
      }
      released_.wait(mutex_);
    }
  }
  for (Worker& worker : ended) {
    bury(std::move(worker));
  }
  return {};
}

void FactorWorkers::release(uint64_t bytes) {
  {
    const MutexLock lock(mutex_);
    reserved_ -= bytes;
  }
  released_.notify_all();
}

Status FactorWorkers::compute_reserved(const FactorRequest& request,
                                       const std::function<Status(std::span<float>)>& fill, std::span<std::byte> a,
                                       std::span<std::byte> b) {
  QCACHE_TRY_ASSIGN(const SharedFloats memory,
                    SharedFloats::make(shared_floats(request.rows, request.columns, request.rank)));
  const size_t matrix = request.rows * request.columns;
  QCACHE_TRY_ASSIGN(Worker worker, take());
  if (Status filled = contain_exceptions("cannot fill the matrix", [&] { return fill(memory.values().first(matrix)); });
      !filled) {
    put_back(std::move(worker));
    return filled;
  }
  const std::optional<FactorReply> reply = ask(worker.socket.get(), request, memory.fd());
  if (!reply) {
    const std::string how = bury(std::move(worker));
    const MutexLock lock(mutex_);
    return stopping_ ? fail(ErrorKind::kInterrupted, "the filesystem is being unmounted")
                     : fail(ErrorKind::kIo, fmt::format("qcache-worker {}; read again to try again", how));
  }
  put_back(std::move(worker));
  if (reply->done != 1) {
    return fail(ErrorKind::kIo, fmt::format("qcache-worker failed: {}", reply->reason.data()));
  }
  std::ranges::copy(std::as_bytes(memory.values().subspan(matrix, a.size() / sizeof(float))), a.begin());
  std::ranges::copy(std::as_bytes(memory.values().subspan(matrix + a.size() / sizeof(float))), b.begin());
  return {};
}

Result<FactorWorkers::Worker> FactorWorkers::take() {
  {
    const MutexLock lock(mutex_);
    if (!stopping_ && !idle_.empty()) {
      Worker worker = std::move(idle_.back());
      idle_.pop_back();
      at_work_.insert(worker.pid);
      return worker;
    }
  }
  return start();
}

Result<FactorWorkers::Worker> FactorWorkers::start() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return fail(system_error(errno, "cannot make a socket for qcache-worker"));
  }
  Worker worker{-1, UniqueFd(ends[0]), {}};
  const UniqueFd theirs(ends[1]);
  // Held while it starts, so that stop() finds every worker.
  const MutexLock lock(mutex_);
  if (stopping_) {
    return fail(ErrorKind::kInterrupted, "the filesystem is being unmounted");
  }
  for (const std::string& program : programs_) {
    const int error = spawn(program, theirs.get(), worker.pid);
    if (error == 0) {
      spdlog::debug("started {} (process {})", program, worker.pid);
      at_work_.insert(worker.pid);
      return worker;
    }
    if (error != ENOENT) {
      return fail(system_error(error, "cannot run " + program));
    }
  }
  return fail(ErrorKind::kIo, fmt::format("ranks above 0 need qcache-worker, which is not at {}: install all of qcache",
                                          fmt::join(programs_, " or ")));
}

void FactorWorkers::put_back(Worker worker) {
  const MutexLock lock(mutex_);
  at_work_.erase(worker.pid);
  worker.idle_since = Clock::now();
  idle_.push_back(std::move(worker));
}

std::string FactorWorkers::bury(Worker worker) {
  worker.socket.reset();  // a worker that lives sees it and ends
  siginfo_t info{};
  // Without reaping it, so that stop() cannot meet another process of that number.
  while (::waitid(P_PID, static_cast<id_t>(worker.pid), &info, WEXITED | WNOWAIT) != 0 && errno == EINTR) {
  }
  const MutexLock lock(mutex_);
  at_work_.erase(worker.pid);
  ::waitpid(worker.pid, nullptr, 0);
  if (info.si_code == CLD_EXITED) {
    return fmt::format("ended with exit code {}", info.si_status);
  }
  const char* const signal = ::sigdescr_np(info.si_status);
  return fmt::format("was ended by signal {} ({})", info.si_status, signal != nullptr ? signal : "unknown");
}

void FactorWorkers::end_idle() {
  std::vector<Worker> ended;
  {
    const MutexLock lock(mutex_);
    const auto idle_long = [](const Worker& worker) { return Clock::now() - worker.idle_since > kIdleTime; };
    const auto first = std::partition(idle_.begin(), idle_.end(), std::not_fn(idle_long));
    std::move(first, idle_.end(), std::back_inserter(ended));
    idle_.erase(first, idle_.end());
  }
  for (Worker& worker : ended) {
    bury(std::move(worker));
  }
}

void FactorWorkers::stop() {
  std::vector<Worker> ended;
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    for (const pid_t pid : at_work_) {
      ::kill(pid, SIGKILL);
    }
    ended.swap(idle_);
  }
  released_.notify_all();
  for (Worker& worker : ended) {
    bury(std::move(worker));
  }
}

}  // namespace qcache

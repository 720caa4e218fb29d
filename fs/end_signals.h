#pragma once

#include <chrono>
#include <optional>

#include "core/base/result.h"
#include "core/base/unique_fd.h"

namespace qcache {

/// SIGTERM, SIGINT and SIGHUP, which tell the process to end, as something to wait for. Those that were ignored before
/// (nohup) stay ignored. SIGPIPE is ignored meanwhile, for those who write to pipes.
///
/// One at a time per process. wait() belongs to one thread; stop_waiting() may be called from any.
class EndSignals {
 public:
  static Result<EndSignals> catch_them();
  ~EndSignals();
  EndSignals(EndSignals&& other) noexcept = default;
  EndSignals& operator=(EndSignals&&) = delete;
  EndSignals(const EndSignals&) = delete;
  EndSignals& operator=(const EndSignals&) = delete;

  enum class Event { kSignal, kTimeout, kStopped };
  /// The next signal, for as long as `patience` (none: for ever). After stop_waiting() always kStopped.
  Event wait(std::optional<std::chrono::milliseconds> patience);
  void stop_waiting();

 private:
  EndSignals(UniqueFd receiver, UniqueFd sender) : receiver_(std::move(receiver)), sender_(std::move(sender)) {}

  UniqueFd receiver_;
  UniqueFd sender_;
};

}  // namespace qcache

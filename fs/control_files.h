#pragma once

#include <atomic>
#include <span>
#include <string>
#include <string_view>

#include "core/engine/engine.h"
#include "fs/passthrough.h"

namespace qcache {

/// The texts of `/.qcache`: `status` (JSON), `metrics` (Prometheus text format), `errors` (recent failures, for
/// people). Numbers are padded to one width, so that the size of status and metrics never changes and a stat before a
/// read is true. Thread-safe.
class ControlFiles {
 public:
  ControlFiles(Engine& engine, std::string mount_point);

  /// One of them.
  struct File {
    std::string_view name;
    std::string (ControlFiles::*text)() const;
  };
  [[nodiscard]] static std::span<const File> all();
  /// As it is now.
  [[nodiscard]] std::string text_of(const File& file) const { return (this->*file.text)(); }
  [[nodiscard]] int64_t started_ns() const { return started_ns_; }

  /// Whether complete cached files are handed to the kernel; set by Operations when it knows more.
  void set_passthrough(PassthroughState state) { passthrough_ = state; }

 private:
  [[nodiscard]] std::string status() const;
  [[nodiscard]] std::string metrics() const;
  [[nodiscard]] std::string errors() const;

  Engine& engine_;
  const std::string mount_point_;
  const int64_t started_ns_;
  std::atomic<PassthroughState> passthrough_{PassthroughState::kUntried};
};

}  // namespace qcache

#pragma once

#include <cstdint>
#include <span>

#include "core/base/result.h"
#include "core/base/unique_fd.h"

namespace qcache {

/// Zeroed memory that another process can map, given the descriptor. Unmapped when destroyed. Move-only; not
/// synchronized.
class SharedFloats {
 public:
  /// kIo where the system has not that much memory left.
  static Result<SharedFloats> make(uint64_t count);
  SharedFloats(SharedFloats&& other) noexcept;
  SharedFloats& operator=(SharedFloats&&) = delete;
  SharedFloats(const SharedFloats&) = delete;
  SharedFloats& operator=(const SharedFloats&) = delete;
  ~SharedFloats();

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] std::span<float> values() const { return values_; }

 private:
  SharedFloats(UniqueFd fd, std::span<float> values) : fd_(std::move(fd)), values_(values) {}

  UniqueFd fd_;
  std::span<float> values_;
};

}  // namespace qcache

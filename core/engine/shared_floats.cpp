#include "core/engine/shared_floats.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

#include "core/base/memory.h"
#include "core/base/units.h"

namespace qcache {
Result<SharedFloats> SharedFloats::make(uint64_t count) {
  const uint64_t bytes = count * sizeof(float);
  // Asked for first: memory that is not there is found out at the first touch, by a signal that ends the process.
  if (const uint64_t available = usable_memory(); bytes > available) {
    return fail(ErrorKind::kIo, fmt::format("{} of memory are needed and {} are left: end other programs",
                                            format_size(bytes), format_size(available)));
  }
  UniqueFd fd(::memfd_create("qcache-factors", MFD_CLOEXEC));
  if (!fd.valid() || ::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return fail(system_error(errno, "cannot make shared memory of " + format_size(bytes)));
  }
  void* const memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (memory == MAP_FAILED) {
    return fail(system_error(errno, "cannot map shared memory of " + format_size(bytes)));
  }
  return SharedFloats(std::move(fd), {static_cast<float*>(memory), count});
}

SharedFloats::SharedFloats(SharedFloats&& other) noexcept
    : fd_(std::move(other.fd_)), values_(std::exchange(other.values_, {})) {}

SharedFloats::~SharedFloats() {
  if (!values_.empty()) {
    ::munmap(values_.data(), values_.size_bytes());
  }
}

}  // namespace qcache

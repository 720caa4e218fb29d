#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

#include "core/base/unique_fd.h"

namespace qcache {

/// Finds out whether a mount of this process answers.
///
/// A child process asks, which is made before the mount and so holds nothing of it: were this process killed while a
/// thread of its own waits for its own answer, that thread would wait for ever, and with it the kernel's end of the
/// mount. The child ends once it has answered, and with this process. One thread.
class MountProbe {
 public:
  /// `name`: a name in the mount. To be made before the mount.
  explicit MountProbe(std::string name);
  ~MountProbe();
  MountProbe(const MountProbe&) = delete;
  MountProbe& operator=(const MountProbe&) = delete;

  /// Asks once for the name, and waits for the answer: the device number of what is there; nothing where there is
  /// nothing. Asks from this process where the child cannot (none could be made, or somebody has ended it).
  [[nodiscard]] std::optional<uint64_t> device();

 private:
  void end_child();

  const std::string name_;
  UniqueFd socket_;  // its other end is the child's
  pid_t child_ = -1;
};

}  // namespace qcache

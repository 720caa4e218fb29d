#pragma once

#include <cstdint>
#include <string>

#include "core/base/mount_info.h"

namespace qcache {

/// A folder and the mount that it lies in.
struct MountPoint {
  std::string path;  ///< absolute, without links
  MountEntry mount;
  bool mounted_here = false;  ///< the folder is that mount's own mount point, and nothing covers it

  [[nodiscard]] bool is_qcache() const { return mounted_here && mount.type == kQcacheMountType; }
};

/// Looks at the kernel's tables alone: no filesystem is asked for what is mounted, be it dead, stopped or another
/// user's.
Result<MountPoint> look_at_mount_point(Env& env, const std::string& path);

/// A mount that this process has just made, told apart from all that others mount or unmount later on the same place.
/// Asks no filesystem either, so the process that serves it may ask.
class OwnMount {
 public:
  /// `mount_point` is absolute and without links.
  explicit OwnMount(std::string mount_point) : mount_point_(std::move(mount_point)), state_(state_of(mount_point_)) {}

  /// Whether it is what a program meets at its mount point: unmounting that by its name takes this mount down.
  [[nodiscard]] bool on_top() const { return state_of(mount_point_) == state_; }
  /// Whether it is still mounted, covered or moved perhaps.
  [[nodiscard]] bool exists(Env& env) const;
  /// Whether a file with this device number (statx's) lies in it.
  [[nodiscard]] bool holds_device(uint64_t device) const { return state_.device == device; }

 private:
  struct State {
    uint64_t unique = 0;  // never given again; 0 where the kernel has none (before Linux 6.8)
    uint64_t id = 0;      // given to another mount once this one is gone
    uint64_t device = 0;
    friend bool operator==(const State&, const State&) = default;
  };
  static State state_of(const std::string& mount_point);

  std::string mount_point_;
  State state_;
};

}  // namespace qcache

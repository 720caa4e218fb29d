#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "core/base/env.h"
#include "core/base/mutex.h"

namespace qcache {

/// One line of /proc/self/mountinfo (proc(5)), decoded.
struct MountEntry {
  uint64_t id = 0;      ///< its number among the mounts of now; statx(2) calls it stx_mnt_id
  uint64_t device = 0;  ///< st_dev of the files in it
  std::string root;     ///< what of the filesystem is mounted: "/", or a folder in it for a bind mount
  std::string mount_point;
  std::string type;                 ///< "fuse.qcache"
  std::optional<uint32_t> user_id;  ///< who mounted it (FUSE only)
};

/// Every mount, in the order of the table. Lines that are not understood are left out.
[[nodiscard]] std::vector<MountEntry> parse_all_mounts(std::string_view text);

/// The mounts that can be reached: where several lie on one mount point, the last covers the others.
[[nodiscard]] std::vector<MountEntry> parse_mount_info(std::string_view text);

/// The kernel's table of the mounts that this process sees.
Result<std::string> read_mount_info(Env& env);

/// The type of qcache's own mounts.
inline constexpr std::string_view kQcacheMountType = "fuse.qcache";

/// Whether `path` is `folder` or lies below it. Both absolute, without "." and "..".
[[nodiscard]] bool lies_within(std::string_view path, std::string_view folder);

/// The text of a small file that need not know its size (as in /proc); what is beyond `limit` bytes is left out.
Result<std::string> read_text(Env& env, const std::string& path, size_t limit = size_t{1} << 20U);

/// What is mounted where, for those who walk through folders: from the kernel's table alone, so that asking touches no
/// filesystem, be it dead, stopped or served by this very process.
class MountTable {
 public:
  /// Of this process. Empty where the kernel does not tell.
  static MountTable read(Env& env);
  explicit MountTable(std::vector<MountEntry> entries);
  MountTable() = default;

  /// Whether a mount of qcache, this one's or another, lies on `path`, which is not to be touched then.
  [[nodiscard]] bool is_qcache(std::string_view path) const { return points_.contains(std::string(path)); }
  /// Whether a file with this device number lies in such a mount: a link or a bind mount leads to it.
  [[nodiscard]] bool is_qcache_device(uint64_t device) const { return devices_.contains(device); }
  /// Whether the files below `folder` may be served by somebody who can stop: by another machine, or by a process.
  [[nodiscard]] bool may_stop(std::string_view folder) const;

 private:
  std::vector<MountEntry> entries_;
  std::unordered_set<std::string> points_;
  std::unordered_set<uint64_t> devices_;
};

/// The mount table as it is at each call, read again only when the kernel says that it changed. Thread-safe.
class MountWatch {
 public:
  explicit MountWatch(Env& env) : env_(env) {}
  [[nodiscard]] std::shared_ptr<const MountTable> now() QCACHE_EXCLUDES(mutex_);

 private:
  Env& env_;
  Mutex mutex_;
  UniqueFd events_ QCACHE_GUARDED_BY(mutex_);
  std::shared_ptr<const MountTable> table_ QCACHE_GUARDED_BY(mutex_);
};

}  // namespace qcache

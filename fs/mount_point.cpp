#include "fs/mount_point.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include <fmt/format.h>

namespace qcache {
namespace {

constexpr unsigned kMountIdUnique = 0x4000;  // STATX_MNT_ID_UNIQUE of newer headers

// The mask of wanted fields never holds one that a filesystem would be asked for; FUSE then lets even users look who
// may not look into the mount.
std::optional<struct ::statx> mount_facts(int folder, const char* path, unsigned mask) {
  struct ::statx found {};
  const int flags = AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT | (*path == '\0' ? AT_EMPTY_PATH : 0);
  if (::statx(folder, path, flags, mask, &found) != 0) {
    return std::nullopt;
  }
  return found;
}

}  // namespace

Result<MountPoint> look_at_mount_point(Env& env, const std::string& path) {
  QCACHE_TRY_ASSIGN(const UniqueFd folder, env.open(path, O_PATH));
  MountPoint out;
  std::error_code error;
  out.path = std::filesystem::read_symlink(fmt::format("/proc/self/fd/{}", folder.get()), error).string();
  if (error) {
    return fail(system_error(error.value(), "cannot look into /proc"));
  }
  QCACHE_TRY_ASSIGN(const std::string table, read_mount_info(env));
  const std::vector<MountEntry> mounts = parse_all_mounts(table);
  const auto facts = mount_facts(folder.get(), "", 0);
  const bool numbered = facts && (facts->stx_mask & STATX_MNT_ID) != 0;  // Linux 5.8
  // Where the kernel does not tell the mount's number, the last one on the path is taken for the topmost.
  const auto found = std::find_if(mounts.rbegin(), mounts.rend(), [&](const MountEntry& mount) {
    return numbered ? mount.id == facts->stx_mnt_id : mount.mount_point == out.path;
  });
  if (found != mounts.rend()) {
    out.mount = *found;
    out.mounted_here = found->mount_point == out.path;
  }
  return out;
}

OwnMount::State OwnMount::state_of(const std::string& mount_point) {
  State state;
  if (const auto facts = mount_facts(AT_FDCWD, mount_point.c_str(), 0)) {
    state.id = facts->stx_mnt_id;
    state.device = makedev(facts->stx_dev_major, facts->stx_dev_minor);
  }
  if (const auto facts = mount_facts(AT_FDCWD, mount_point.c_str(), kMountIdUnique);
      facts && (facts->stx_mask & kMountIdUnique) != 0) {
    state.unique = facts->stx_mnt_id;
  }
  return state;
}

bool OwnMount::exists(Env& env) const {
  const State now = state_of(mount_point_);
  if (now == state_) {
    return true;
  }
  if (now.id == state_.id) {
    return false;  // its number is another mount's already
  }
  const auto table = read_mount_info(env);
  const std::vector<MountEntry> mounts = parse_all_mounts(table.value_or(""));
  return std::any_of(mounts.begin(), mounts.end(), [this](const MountEntry& mount) {
    return mount.id == state_.id && mount.device == state_.device;
  });
}

}  // namespace qcache

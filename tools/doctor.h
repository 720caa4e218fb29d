#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tools/command.h"
#include "tools/mount_table.h"

namespace qcache {

/// What decides about a cache directory.
struct CacheFacts {
  std::string directory;
  bool exists = false;
  std::string filesystem;         ///< "ext4"; empty where it is not known
  std::optional<uint32_t> owner;  ///< of the directory or of what is in it, where that is not this user
  std::string owned_by_other;     ///< the path whose owner that is
  std::string not_writable;       ///< why nothing can be made there; empty where it can
  std::string problem;            ///< why it cannot be opened otherwise
  uint64_t free_bytes = 0;
  uint64_t total_bytes = 0;
};

/// What decides whether and how well qcache works on a machine, for this user.
struct Machine {
  uint32_t user = 0;
  bool is_admin = false;  ///< CAP_SYS_ADMIN: may mount by itself and use passthrough
  std::string kernel;     ///< "6.18.1-amd64"
  std::string libfuse;    ///< "3.18.3"
  bool built_with_passthrough = false;
  std::string fuse_device;  ///< why /dev/fuse cannot be opened; empty where it can
  bool fuse_device_is_there = true;
  std::string fusermount;  ///< where fusermount3 is; empty where it is not found
  bool fusermount_is_setuid = true;
  bool user_allow_other = false;   ///< /etc/fuse.conf lets users mount with allow_other
  unsigned request_timeout_s = 0;  ///< the kernel ends mounts whose requests take longer; 0: it does not
  std::vector<std::string> dead_mounts;
  std::vector<std::string> silent_mounts;

  std::string worker;  ///< where qcache-worker is, which computes ranks above 0; empty where it is not found

  std::vector<CacheFacts> caches;  ///< that are meant; one, unless mounts of this user have several
};

/// Asks the system. `cache_directories` are those that are meant.
[[nodiscard]] Machine look_at_machine(CommandContext& context, const Mounts& mounts,
                                      const std::vector<std::string>& cache_directories);

enum class Health : uint8_t {
  kGood,
  kNote,     ///< good enough, but others may want to know
  kWarning,  ///< works, but slower or not for everything
  kProblem,  ///< does not work
};

/// One thing that was looked at.
struct Finding {
  Health health = Health::kGood;
  std::string subject;  ///< "/dev/fuse"
  std::string text;     ///< what is
  std::string fix;      ///< what to do; empty where it is good
};

/// Judges a machine: pure.
[[nodiscard]] std::vector<Finding> examine(const Machine& machine);

}  // namespace qcache

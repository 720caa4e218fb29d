#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tools/command.h"
#include "tools/mount_table.h"

namespace qcache {

/// What decides whether and how well qcache works on a machine, for this user.
struct Machine {
  uint32_t user = 0;
  bool is_admin = false;  ///< CAP_SYS_ADMIN: may mount by itself and use passthrough
  std::string kernel;     ///< "6.18.1-amd64"
  std::string libfuse;    ///< "3.18.3"
  bool built_with_passthrough = false;
  std::string fuse_device;         ///< why /dev/fuse cannot be opened; empty where it can
  std::string fusermount;          ///< where fusermount3 is; empty where it is not found
  bool user_allow_other = false;   ///< /etc/fuse.conf lets users mount with allow_other
  unsigned request_timeout_s = 0;  ///< the kernel ends mounts whose requests take longer; 0: it does not
  std::vector<std::string> dead_mounts;
  std::vector<std::string> silent_mounts;

  std::string cache_directory;
  bool cache_exists = false;
  std::string cache_filesystem;         ///< "ext4"; empty where it is not known
  std::optional<uint32_t> cache_owner;  ///< of the directory or of what is in it, where that is not `user`
  std::string cache_owned_by_other;     ///< the path whose owner that is
  std::string cache_not_writable;       ///< why nothing can be made there; empty where it can
  std::string cache_problem;            ///< why it cannot be opened otherwise
  uint64_t free_bytes = 0;
  uint64_t total_bytes = 0;
};

/// Asks the system. `cache_directory` is the one that is meant.
[[nodiscard]] Machine look_at_machine(CommandContext& context, const Mounts& mounts,
                                      const std::string& cache_directory);

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

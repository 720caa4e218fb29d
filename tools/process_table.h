#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace qcache {

/// A process, and what of some folders it has open.
struct Holder {
  pid_t pid = 0;
  std::string program;             ///< as ps(1) calls it
  std::vector<std::string> paths;  ///< sorted, each once
};

/// Which processes have something at or below one of `folders` (absolute, links resolved) open or mapped, or work
/// there; as far as this user may look into them, and without this process. Asks /proc alone, so that no filesystem is
/// waited for, and gives up after two seconds: a process that waits for a stopped mount may keep who looks into it.
[[nodiscard]] std::vector<Holder> find_holders(const std::vector<std::string>& folders);

/// "python3 (4242), bash (17) and 3 more"; empty where there are none.
[[nodiscard]] std::string names_of(const std::vector<Holder>& holders);

}  // namespace qcache

#include "core/base/memory.h"

#include <malloc.h>
#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>
#include <string_view>

#include "core/base/checked.h"

namespace qcache {
namespace {

constexpr uint64_t kUnlimited = std::numeric_limits<uint64_t>::max();

/// The number that the file begins with; kUnlimited where there is none ("max"), or no such file.
uint64_t number_in(const std::string& path) {
  std::ifstream file(path);
  uint64_t number = 0;
  return file >> number ? number : kUnlimited;
}

/// What can be used without swapping.
uint64_t available_memory(const std::string& root) {
  std::ifstream info(root + "/proc/meminfo");
  std::string key;
  for (uint64_t kilobytes = 0; info >> key >> kilobytes;
       info.ignore(std::numeric_limits<std::streamsize>::max(), '\n')) {
    if (key == "MemAvailable:") {
      return kilobytes * 1024;
    }
  }
  return kUnlimited;
}

/// The least limit of the group `path` and of those above it. In a container the path may lead nowhere; the topmost is
/// then its own.
uint64_t group_limit(const std::string& hierarchy, std::string path, std::string_view file) {
  uint64_t limit = kUnlimited;
  for (;;) {
    limit = std::min(limit, number_in(hierarchy + path + '/' + std::string(file)));
    const size_t slash = path.rfind('/');
    if (path.empty() || slash == std::string::npos) {
      return limit;
    }
    path.resize(slash);
  }
}

/// Lines of /proc/self/cgroup are "number:controllers:path", of version 2 "0::path".
uint64_t group_limits(const std::string& root) {
  std::ifstream groups(root + "/proc/self/cgroup");
  uint64_t limit = kUnlimited;
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) {
      continue;
    }
    const std::string controllers = ',' + line.substr(first + 1, second - first - 1) + ',';
    const std::string path = line.substr(second + 1);
    const std::string mounts = root + "/sys/fs/cgroup";
    if (controllers == ",,") {
      for (const std::string_view file : {"memory.max", "memory.high"}) {
        limit = std::min({limit, group_limit(mounts, path, file), group_limit(mounts + "/unified", path, file)});
      }
    } else if (controllers.find(",memory,") != std::string::npos) {
      limit = std::min(limit, group_limit(mounts + "/memory", path, "memory.limit_in_bytes"));
    }
  }
  return limit;
}

uint64_t process_limit() {
  uint64_t least = kUnlimited;
  for (const auto resource : {RLIMIT_AS, RLIMIT_DATA}) {
    rlimit limit{};
    if (::getrlimit(resource, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
      least = std::min<uint64_t>(least, limit.rlim_cur);
    }
  }
  return least;
}

}  // namespace

uint64_t usable_memory(uint64_t held, const std::string& root) {
  return std::min(
      {checked_add(available_memory(root), held).value_or(kUnlimited), group_limits(root), process_limit()});
}

void return_freed_memory() {
#ifdef __GLIBC__
  ::malloc_trim(0);
#endif
}

}  // namespace qcache

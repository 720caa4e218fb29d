#include "tools/user_allow_other.h"

#include <sstream>
#include <string>

#include "core/base/mount_info.h"

namespace qcache {

bool user_may_allow_other(Env& env) {
  std::istringstream lines(read_text(env, "/etc/fuse.conf").value_or(""));
  for (std::string line; std::getline(lines, line);) {
    constexpr const char* kBlank = " \t\r";
    const size_t begin = line.find_first_not_of(kBlank);
    const size_t end = line.find_last_not_of(kBlank);
    if (begin != std::string::npos && line.substr(begin, end - begin + 1) == "user_allow_other") {
      return true;
    }
  }
  return false;
}

}  // namespace qcache

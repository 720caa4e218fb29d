#include "fs/request_timeout.h"

#include <algorithm>
#include <charconv>
#include <cstdint>

#include "core/base/mount_info.h"

namespace qcache {
namespace {

constexpr unsigned kLongest = UINT16_MAX;  // 18 hours; the protocol has 16 bits

unsigned read_number(Env& env, const std::string& path) {
  const std::string text = read_text(env, path).value_or("");
  unsigned value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

}  // namespace

RequestTimeouts RequestTimeouts::read(Env& env) {
  return {read_number(env, "/proc/sys/fs/fuse/default_request_timeout"),
          read_number(env, "/proc/sys/fs/fuse/max_request_timeout")};
}

unsigned RequestTimeouts::ask([[maybe_unused]] fuse_conn_info* connection) const {
  if (by_default == 0 && at_most == 0) {
    return 0;  // asking would only begin a limit
  }
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18)
  connection->request_timeout = static_cast<uint16_t>(kLongest);
  const unsigned asked = kLongest;
#else
  const unsigned asked = by_default == 0 ? kLongest : by_default;
#endif
  return at_most == 0 ? asked : std::min(asked, at_most);
}

bool is_short_request_timeout(unsigned seconds) {
  return seconds != 0 && seconds < kLongest;
}

}  // namespace qcache

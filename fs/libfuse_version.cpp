#include "fs/libfuse_version.h"

#include "fs/fuse_api.h"

namespace qcache {

std::string libfuse_version() {
  return fuse_pkgversion();
}

bool built_with_passthrough() {
  return QCACHE_HAS_PASSTHROUGH != 0;
}

}  // namespace qcache

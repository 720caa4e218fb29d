#pragma once

#include "core/layout/container.h"

// Every container, one line each, in the order they are listed: `X(name)` is the container that containers/<name>.cpp
// defines as `container_<name>()`.
#define QCACHE_CONTAINERS(X) \
  X(checkpoint)              \
  X(folder_weights)          \
  X(adapter)

namespace qcache {

#define QCACHE_DECLARE_CONTAINER(name) const Container& container_##name();
QCACHE_CONTAINERS(QCACHE_DECLARE_CONTAINER)
#undef QCACHE_DECLARE_CONTAINER

}  // namespace qcache

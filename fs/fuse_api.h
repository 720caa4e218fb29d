#pragma once

// The one way by which this folder includes libfuse, so that every file sees the same API.
//
// 3.14 is what Debian 12 ships; passthrough needs 3.17.4 and is compiled in where the library has it.
#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 14)
#include <fuse_lowlevel.h>

#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
#define QCACHE_HAS_PASSTHROUGH 1
#else
#define QCACHE_HAS_PASSTHROUGH 0
#endif

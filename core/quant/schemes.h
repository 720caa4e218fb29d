#pragma once

#include "core/quant/scheme.h"

// Every scheme, one line each, in the order they are listed: `X(name)` is the scheme that
// schemes/<name>.cpp defines as `scheme_<name>()`.
#define QCACHE_SCHEMES(X) \
  X(bf16)                 \
  X(fp16)                 \
  X(fp32)                 \
  X(int8)                 \
  X(fp8)                  \
  X(nf4)                  \
  X(qfloat8)

namespace qcache {

#define QCACHE_DECLARE_SCHEME(name) const Scheme& scheme_##name();
QCACHE_SCHEMES(QCACHE_DECLARE_SCHEME)
#undef QCACHE_DECLARE_SCHEME

}  // namespace qcache

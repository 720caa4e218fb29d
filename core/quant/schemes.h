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
  X(int4)                 \
  X(nf4)                  \
  X(qfloat8)              \
  X(qint8)                \
  X(qint4)                \
  X(fp8_block)            \
  X(int8_bnb)             \
  X(nf4_dq)               \
  X(fp4)                  \
  X(w8a16)                \
  X(nvfp4)                \
  X(mxfp4)

namespace qcache {

#define QCACHE_DECLARE_SCHEME(name) const Scheme& scheme_##name();
QCACHE_SCHEMES(QCACHE_DECLARE_SCHEME)
#undef QCACHE_DECLARE_SCHEME

}  // namespace qcache

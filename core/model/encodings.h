#pragma once

#include "core/model/source_encoding.h"

// Every encoding of a source, one line each, in the order in which they are asked to recognize: `X(name)` is the one
// that encodings/<name>.cpp defines as `encoding_<name>()`.
#define QCACHE_SOURCE_ENCODINGS(X) X(plain)

namespace qcache {

#define QCACHE_DECLARE_SOURCE_ENCODING(name) const SourceEncoding& encoding_##name();
QCACHE_SOURCE_ENCODINGS(QCACHE_DECLARE_SOURCE_ENCODING)
#undef QCACHE_DECLARE_SOURCE_ENCODING

}  // namespace qcache

#pragma once

#include "core/model/source_view.h"

// Every view, one line each: `X(name)` is the view that views/<name>.cpp defines as `view_<name>()`.
#define QCACHE_VIEWS(X) X(as_is)

namespace qcache {

#define QCACHE_DECLARE_VIEW(name) const SourceView& view_##name();
QCACHE_VIEWS(QCACHE_DECLARE_VIEW)
#undef QCACHE_DECLARE_VIEW

}  // namespace qcache

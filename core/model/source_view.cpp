#include "core/model/source_view.h"

#include <array>

#include "core/model/views.h"

namespace qcache {

std::span<const SourceView* const> all_views() {
#define QCACHE_ADDRESS_OF_VIEW(name) &view_##name(),
  static const std::array kAll = {QCACHE_VIEWS(QCACHE_ADDRESS_OF_VIEW)};
#undef QCACHE_ADDRESS_OF_VIEW
  return kAll;
}

}  // namespace qcache

#include <array>

#include "core/quant/packed_int_scheme.h"
#include "core/quant/schemes.h"

namespace qcache {

const Scheme& scheme_int4() {
  static constexpr std::array<std::string_view, 2> kAliases = {"w4a16", "int4-g128"};
  static const PackedIntScheme kScheme("int4", kAliases, 4);
  return kScheme;
}

}  // namespace qcache

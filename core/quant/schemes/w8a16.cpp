#include <array>

#include "core/quant/packed_int_scheme.h"
#include "core/quant/schemes.h"

namespace qcache {

const Scheme& scheme_w8a16() {
  static constexpr std::array<std::string_view, 1> kAliases = {"int8-weightonly"};
  static const PackedIntScheme kScheme("w8a16", kAliases, 8);
  return kScheme;
}

}  // namespace qcache

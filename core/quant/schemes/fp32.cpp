#include <array>

#include "core/quant/cast_scheme.h"
#include "core/quant/schemes.h"

namespace qcache {

const Scheme& scheme_fp32() {
  static constexpr std::array<std::string_view, 2> kAliases = {"float32", "float"};
  static const CastScheme kScheme("fp32", kAliases, DType::kF32);
  return kScheme;
}

}  // namespace qcache

#include <array>

#include "core/quant/cast_scheme.h"
#include "core/quant/schemes.h"

namespace qcache {

const Scheme& scheme_fp16() {
  static constexpr std::array<std::string_view, 2> kAliases = {"float16", "half"};
  static const CastScheme kScheme("fp16", kAliases, DType::kF16);
  return kScheme;
}

}  // namespace qcache

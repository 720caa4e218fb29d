#include <array>

#include "core/quant/cast_scheme.h"
#include "core/quant/schemes.h"

namespace qcache {

const Scheme& scheme_bf16() {
  static constexpr std::array<std::string_view, 1> kAliases = {"bfloat16"};
  static const CastScheme kScheme("bf16", kAliases, DType::kBF16);
  return kScheme;
}

}  // namespace qcache

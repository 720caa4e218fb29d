#include <array>

#include "core/quant/kernels.h"
#include "core/quant/quanto_scheme.h"
#include "core/quant/schemes.h"

namespace qcache {

const Scheme& scheme_qfloat8() {
  static constexpr std::array<std::string_view, 2> kAliases = {"qfloat8_e4m3fn", "quanto-float8"};
  static const QuantoScheme kScheme({.name = "qfloat8",
                                     .aliases = kAliases,
                                     .version = 2,
                                     .qtype = "qfloat8_e4m3fn",
                                     .diffusers_dtype = "float8",
                                     .code_dtype = DType::kF8E4M3,
                                     .encode = kernels::encode_qfloat8,
                                     .decode = decode::e4m3});
  return kScheme;
}

}  // namespace qcache

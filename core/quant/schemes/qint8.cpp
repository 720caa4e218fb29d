#include <array>

#include "core/quant/kernels.h"
#include "core/quant/quanto_scheme.h"
#include "core/quant/schemes.h"

namespace qcache {

const Scheme& scheme_qint8() {
  static constexpr std::array<std::string_view, 1> kAliases = {"quanto-int8"};
  static const QuantoScheme kScheme({.name = "qint8",
                                     .aliases = kAliases,
                                     .version = 1,
                                     .qtype = "qint8",
                                     .diffusers_dtype = "int8",
                                     .code_dtype = DType::kI8,
                                     .encode = kernels::encode_qint8,
                                     .decode = decode::int8});
  return kScheme;
}

}  // namespace qcache

#include <array>

#include "core/quant/bnb_4bit.h"
#include "core/quant/decode.h"
#include "core/quant/kernels.h"
#include "core/quant/quantizer.h"
#include "core/quant/schemes.h"

namespace qcache {

const Scheme& scheme_fp4() {
  static constexpr std::array<std::string_view, 1> kAliases = {"bnb-fp4"};
  static const Bnb4BitScheme kScheme({.name = "fp4",
                                      .aliases = kAliases,
                                      .version = 1,
                                      .values = kFp4Values,
                                      .encode = kernels::encode_fp4,
                                      .decode = decode::fp4});
  return kScheme;
}

}  // namespace qcache

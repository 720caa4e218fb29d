#include <array>

#include "core/quant/bnb_4bit.h"
#include "core/quant/decode.h"
#include "core/quant/kernels.h"
#include "core/quant/quantizer.h"
#include "core/quant/schemes.h"

namespace qcache {

const Scheme& scheme_nf4() {
  static constexpr std::array<std::string_view, 2> kAliases = {"bnb-4bit", "bnb-nf4"};
  static const Bnb4BitScheme kScheme({.name = "nf4",
                                      .aliases = kAliases,
                                      .version = 2,
                                      .values = kNf4Values,
                                      .encode = kernels::encode_nf4,
                                      .decode = decode::nf4});
  return kScheme;
}

}  // namespace qcache

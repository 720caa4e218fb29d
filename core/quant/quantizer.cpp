#include "core/quant/quantizer.h"

#include "core/quant/number_formats.h"

namespace qcache {
namespace {

float epsilon(DType dtype) {
  switch (dtype) {
    case DType::kBF16:
      return 0x1p-7F;
    case DType::kF16:
      return 0x1p-10F;
    default:
      return 0x1p-23F;
  }
}

float scale_or_epsilon(DType dtype, float exact) {
  const float scale = round_to(dtype, exact);
  return scale == 0 ? epsilon(dtype) : scale;
}

}  // namespace

float int8_scale(DType dtype, float amax) {
  return scale_or_epsilon(dtype, amax / 127.5F);
}

float fp8_scale(DType dtype, float amax) {
  return scale_or_epsilon(dtype, amax / kE4M3Max);
}

float qfloat8_scale(DType dtype, float amax) {
  return round_to(dtype, amax / kE4M3Max);
}

}  // namespace qcache

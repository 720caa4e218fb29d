#include "core/quant/reference.h"

#include <algorithm>

#include "core/quant/quantizer.h"
#include "core/quant/values.h"

namespace qcache::reference {
namespace {

Values all_values(DType source, std::span<const std::byte> bytes) {
  return {source, bytes.data(), bytes.size() / item_bytes(source)};
}

void cast(const EncodeArgs& args, DType target) {
  const Values values = all_values(args.source_dtype, args.source);
  const uint64_t stride = item_bytes(target);
  for (uint64_t i = 0; i < values.count(); ++i) {
    store_from_float(target, values[i], args.stored[0].data() + i * stride);
  }
}

}  // namespace

void cast_to_bf16(const EncodeArgs& args) {
  cast(args, DType::kBF16);
}
void cast_to_fp16(const EncodeArgs& args) {
  cast(args, DType::kF16);
}
void cast_to_fp32(const EncodeArgs& args) {
  cast(args, DType::kF32);
}

void survey_amax(DType source, std::span<const std::byte> bytes, Survey& survey) {
  survey.amax = std::max(survey.amax, all_values(source, bytes).finite_amax());
}

void survey_absmax_mean(DType source, std::span<const std::byte> bytes, Survey& survey) {
  const Values values = all_values(source, bytes);
  for (uint64_t first = 0; first < values.count(); first += kNf4BlockElements) {
    survey.sum += values.slice(first, kNf4BlockElements).finite_amax();
    ++survey.count;
  }
}

}  // namespace qcache::reference

#include "core/engine/residual.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/base/page_buffer.h"
#include "core/layout/layout_plan.h"
#include "core/quant/number_formats.h"

namespace qcache {
namespace {

// As much as fits a core's L2 cache with what is made of it.
constexpr uint64_t kSliceSourceBytes = uint64_t{256} << 10;

}  // namespace

Status compute_residual(const SourceReader& source, const TensorInfo& tensor, const Encoding& encoding,
                        const Survey* survey, std::span<float> out) {
  const uint64_t item = item_bytes(encoding.source_dtype);
  // A transposed tensor's rows are gathered from all over it: the more rows at a time, the fewer times it is read.
  const uint64_t slice_bytes = tensor.strides.empty() ? kSliceSourceBytes : kTileSourceBytes;
  const uint64_t step = std::max<uint64_t>(1, slice_bytes / encoding.source_bytes_of_unit());
  PageBuffer weights;
  std::vector<float> values;
  std::vector<std::vector<std::byte>> stored(encoding.stored.size());
  for (uint64_t first = 0; first < encoding.unit_count(); first += step) {
    const UnitRange slice{first, std::min(step, encoding.unit_count() - first)};
    const std::vector<ByteRange> wanted = encoding.source_ranges(slice);
    QCACHE_TRY(source.read(tensor, wanted, weights));
    std::vector<std::span<std::byte>> made;
    std::vector<std::span<const std::byte>> kept;
    for (size_t i = 0; i < stored.size(); ++i) {
      const bool by_kernel = encoding.stored[i].constant.empty() && encoding.stored[i].order != UnitOrder::kOnce;
      stored[i].resize(by_kernel ? total_size(encoding.stored_ranges(i, slice)) : 0);
      made.emplace_back(stored[i]);
      kept.emplace_back(stored[i]);
    }
    encoding.encode_units(weights, made, survey);
    values.resize(weights.size() / item);
    encoding.decode_units(kept, survey, values);
    const std::byte* weight = weights.data();
    const float* value = values.data();
    for (const ByteRange& range : wanted) {
      for (float& lost : out.subspan(range.offset / item, range.size / item)) {
        const float difference = load_as_float(encoding.source_dtype, weight) - *value++;
        lost = std::isfinite(difference) ? difference : 0.0F;
        weight += item;
      }
    }
  }
  return {};
}

}  // namespace qcache

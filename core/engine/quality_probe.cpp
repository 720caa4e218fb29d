#include "core/engine/quality_probe.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "core/base/page_buffer.h"
#include "core/quant/number_formats.h"
#include "core/quant/tensor_selection.h"

namespace qcache {
namespace {

constexpr uint64_t kSampleElements = uint64_t{256} << 10;
constexpr uint64_t kLeastRuns = 2;

/// The bytes and values of one run.
struct Buffers {
  PageBuffer source;
  std::vector<PageBuffer> stored;
  std::vector<float> values;
};

Status read_stored(Env& env, int fd, const std::vector<ByteRange>& ranges, PageBuffer& out) {
  out.clear();
  for (const ByteRange& range : ranges) {
    const size_t begin = out.size();
    out.resize(begin + range.size);
    QCACHE_TRY_ASSIGN(const size_t got, env.read_at(fd, std::span(out).subspan(begin), range.offset));
    if (got != range.size) {
      return fail(ErrorKind::kCorrupt, "the cached file became shorter while it was measured");
    }
  }
  return {};
}

void add(DType dtype, const Buffers& run, TensorQuality& quality) {
  // A stored value that is not finite where the weight is: as wrong as a value can be, but still a number.
  constexpr double kWorst = std::numeric_limits<float>::max();
  const uint64_t item = item_bytes(dtype);
  for (size_t i = 0; i < run.values.size(); ++i) {
    const double weight = load_as_float(dtype, run.source.data() + i * item);
    if (!std::isfinite(weight)) {
      continue;
    }
    const double error = run.values[i] - weight;
    quality.signal += weight * weight;
    quality.noise += std::isfinite(error) ? error * error : kWorst * kWorst;
    ++quality.elements;
  }
}

}  // namespace

std::vector<UnitRange> quality_sample(const Encoding& encoding, uint64_t runs) {
  const uint64_t units = encoding.unit_count();
  const uint64_t unit_elements =
      std::max<uint64_t>(1, encoding.source_bytes_of_unit() / item_bytes(encoding.source_dtype));
  const uint64_t run_units = std::max<uint64_t>(1, kSampleElements / runs / unit_elements);
  runs = std::clamp(kSampleElements / unit_elements / run_units, kLeastRuns, runs);
  if (units <= runs * run_units) {
    return units == 0 ? std::vector<UnitRange>() : std::vector<UnitRange>{{0, units}};
  }
  std::vector<UnitRange> sample;
  for (uint64_t i = 0; i < runs; ++i) {
    sample.push_back({(units - run_units) / (runs - 1) * i, run_units});
  }
  sample.back().first = units - run_units;
  return sample;
}

Result<std::vector<TensorQuality>> measure_quality(Env& env, const LayoutPlan& plan, const SourceReader& source,
                                                   Surveys& surveys, int fd, const KeepGoing& keep_going) {
  std::vector<TensorQuality> measured;
  Buffers run;
  for (uint32_t index = 0; index < plan.group_count(); ++index) {
    const std::shared_ptr<const Group> group = plan.group(index);
    const Encoding& encoding = group->encoding;
    if (!encoding.quantized || encoding.decode == nullptr) {
      continue;
    }
    if (keep_going && !keep_going()) {
      return fail(ErrorKind::kInterrupted, "the filesystem is being unmounted");
    }
    const TensorInfo& tensor = plan.source().tensors[group->tensor];
    std::optional<Survey> survey;
    if (encoding.survey != nullptr) {
      QCACHE_TRY_ASSIGN(survey, surveys.of(index));
    }
    TensorQuality& quality = measured.emplace_back();
    quality.module = module_of_weight(tensor);
    run.stored.resize(encoding.stored.size());
    // A transposed tensor's rows are gathered from all over it: few long runs cost what few rows do.
    const auto sample = tensor.strides.empty() ? quality_sample(encoding) : quality_sample(encoding, kLeastRuns);
    for (const UnitRange& units : sample) {
      QCACHE_TRY(source.read(tensor, encoding.source_ranges(units), run.source));
      std::vector<std::span<const std::byte>> stored(encoding.stored.size());
      for (uint32_t i = 0; i < stored.size(); ++i) {
        if (encoding.stored[i].order != UnitOrder::kOnce) {
          QCACHE_TRY(read_stored(env, fd, plan.tile_file_ranges({index, units}, i), run.stored[i]));
          stored[i] = run.stored[i];
        }
      }
      run.values.resize(run.source.size() / item_bytes(encoding.source_dtype));
      encoding.decode_units(stored, survey ? &*survey : nullptr, run.values);
      add(encoding.source_dtype, run, quality);
    }
    QCACHE_TRY(source.check(tensor));
  }
  return measured;
}

MeasureQuality quality_probe(Env& env, std::shared_ptr<const LayoutPlan> plan,
                             std::shared_ptr<const SourceReader> source, std::shared_ptr<Surveys> surveys) {
  return [&env, plan = std::move(plan), source = std::move(source), surveys = std::move(surveys)](
             int fd, const KeepGoing& keep_going) {
    return measure_quality(env, *plan, *source, *surveys, fd, keep_going);
  };
}

}  // namespace qcache

#include <benchmark/benchmark.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "core/quant/number_formats.h"
#include "core/quant/quantizer.h"
#include "core/quant/scheme.h"
#include "tests/quant/encode_tensor.h"

// How fast one core makes stored bytes, in bytes of source per second: 512 KiB of source at a time, as the
// engine feeds the kernels, so that source and output stay in the caches. Compare with copy.
namespace qcache {
namespace {

constexpr uint32_t kSliceBytes = 512 << 10;
constexpr uint64_t kRowElements = 4096;

std::vector<std::byte> normal_values(DType dtype) {
  std::mt19937 generator(1);
  std::normal_distribution<float> normal(0, 0.02F);
  std::vector<std::byte> out(kSliceBytes);
  for (uint64_t i = 0; i < out.size(); i += item_bytes(dtype)) {
    store_from_float(dtype, normal(generator), out.data() + i);
  }
  return out;
}

/// Squares need whole ones, so fp8-block gets shorter rows and more of them.
TensorInfo slice_for(const Scheme& scheme, DType dtype) {
  const uint64_t elements = kSliceBytes / item_bytes(dtype);
  const uint64_t rows = scheme.name() == "fp8-block" ? kFp8BlockSide : elements / kRowElements;
  return tensor_of("layers.0.q_proj.weight", dtype, {rows, elements / rows});
}

void encode_slice(benchmark::State& state, const Scheme& scheme, DType dtype) {
  const Encoding encoding = encoding_alone(scheme, slice_for(scheme, dtype));
  const std::vector<std::byte> source = normal_values(dtype);
  const Survey survey = survey_of(encoding, source);
  std::vector<std::vector<std::byte>> stored;
  std::vector<std::span<std::byte>> targets;
  for (const StoredTensor& made : encoding.stored) {
    stored.emplace_back(made.bytes_per_unit > 0 ? made.size_bytes() : 0);
    targets.emplace_back(stored.back());
  }
  for (auto _ : state) {
    encoding.encode_units(source, targets, &survey);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * int64_t{kSliceBytes});
}

void survey_slice(benchmark::State& state, const Scheme& scheme, DType dtype) {
  const Encoding encoding = encoding_alone(scheme, slice_for(scheme, dtype));
  const std::vector<std::byte> source = normal_values(dtype);
  for (auto _ : state) {
    benchmark::DoNotOptimize(survey_of(encoding, source));
  }
  state.SetBytesProcessed(state.iterations() * int64_t{kSliceBytes});
}

void copy_slice(benchmark::State& state) {
  const std::vector<std::byte> source = normal_values(DType::kBF16);
  std::vector<std::byte> out(source.size());
  for (auto _ : state) {
    std::memcpy(out.data(), source.data(), source.size());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * int64_t{kSliceBytes});
}

void register_all() {
  benchmark::RegisterBenchmark("memcpy", copy_slice);
  for (const Scheme* scheme : all_schemes()) {
    for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
      const std::string name = std::string(scheme->name()) + "/from_" + std::string(torch_name(dtype));
      benchmark::RegisterBenchmark(name.c_str(),
                                   [scheme, dtype](benchmark::State& state) { encode_slice(state, *scheme, dtype); });
      if (scheme->name() == "nvfp4" || scheme->name() == "nf4-dq") {
        benchmark::RegisterBenchmark(("survey/" + name).c_str(),
                                     [scheme, dtype](benchmark::State& state) { survey_slice(state, *scheme, dtype); });
      }
    }
  }
}

}  // namespace
}  // namespace qcache

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
    return 1;
  }
  qcache::register_all();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

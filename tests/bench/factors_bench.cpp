// What the LoRA factors of one weight cost, from the source's rows to the factors of a file: the residual, and the
// worker's part. A worker is at hand, as it is from the second weight of a file on; the first waits for its start too.

#include <benchmark/benchmark.h>

#include <bit>
#include <memory>
#include <random>
#include <vector>

#include "core/engine/factor_workers.h"
#include "core/engine/memory_source.h"
#include "core/engine/residual.h"
#include "core/quant/factors.h"
#include "core/quant/scheme.h"

namespace qcache {
namespace {

constexpr uint64_t kSide = 4096;

/// A bf16 weight of 4096 by 4096, normally distributed.
struct Weight {
  Weight() : bytes(kSide * kSide * 2), model(std::make_shared<SourceModel>()) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0, 0.02F);
    for (size_t i = 0; i < bytes.size(); i += 2) {
      const auto bits = std::bit_cast<uint32_t>(normal(random));
      bytes[i] = static_cast<std::byte>(bits >> 16);
      bytes[i + 1] = static_cast<std::byte>(bits >> 24);
    }
    TensorInfo tensor;
    tensor.name = "model.layers.0.mlp.up_proj.weight";
    tensor.dtype = DType::kBF16;
    tensor.shape = {kSide, kSide};
    tensor.data.size = bytes.size();
    model->tensors.push_back(tensor);
    source = std::make_unique<MemorySource>(Env::posix(), model, std::vector<std::span<const std::byte>>{bytes}, stats);
  }
  std::vector<std::byte> bytes;
  std::shared_ptr<SourceModel> model;
  Stats stats;
  std::unique_ptr<MemorySource> source;
};

Weight& weight() {
  static Weight one;
  return one;
}

Encoding stored_as_nf4() {
  const Scheme& scheme = *find_scheme("nf4");
  const SourceModel& model = *weight().model;
  return scheme.encoding(model, scheme.choose(model), model.tensors[0]);
}

void residual(benchmark::State& state) {
  const Encoding encoding = stored_as_nf4();
  std::vector<float> out(kSide * kSide);
  for ([[maybe_unused]] auto _ : state) {
    if (!compute_residual(*weight().source, weight().model->tensors[0], encoding, nullptr, out)) {
      state.SkipWithError("the residual could not be computed");
    }
  }
}

void factors(benchmark::State& state) {
  const Encoding encoding = stored_as_nf4();
  FactorRequest request;
  request.rank = static_cast<uint32_t>(state.range(0));
  request.rows = kSide;
  request.columns = kSide;
  request.set_size = factor_set_size(request.rank);
  request.seed = factor_seed(weight().model->tensors[0].name);
  std::vector<float> a(request.rank * kSide);
  std::vector<float> b(request.rank * kSide);
  FactorWorkers workers(worker_programs());
  const auto compute = [&] {
    const Status done = workers.compute(
        request,
        [&](std::span<float> matrix) {
          return compute_residual(*weight().source, weight().model->tensors[0], encoding, nullptr, matrix);
        },
        std::as_writable_bytes(std::span(a)), std::as_writable_bytes(std::span(b)));
    if (!done) {
      state.SkipWithError(done.error().message.c_str());
    }
  };
  compute();  // starts the worker
  for ([[maybe_unused]] auto _ : state) {
    compute();
  }
}

BENCHMARK(residual)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(factors)->Arg(16)->Arg(64)->Arg(128)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace qcache

BENCHMARK_MAIN();

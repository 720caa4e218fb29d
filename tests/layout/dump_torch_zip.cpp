#include <cstdio>
#include <exception>
#include <random>
#include <stdexcept>
#include <string>

#include "core/layout/torch_zip.h"
#include "tests/layout/checkpoint_file.h"
#include "tests/layout/test_schemes.h"
#include "tests/support/plans.h"

// Writes checkpoints and their manifests for tests/frameworks/torch_zip_check.py into a directory:
//   portable.bin  types that every torch since 1.13 has
//   modern.bin    all types
//   mixed*.bin    random models in schemes with several stored tensors and constants
//   vast.bin      a sparse record of 5 GiB and records beyond 4 GiB
//   many.bin      70,003 tensors

namespace qcache {
namespace {

bool is_portable(DType dtype) {
  return is_wide_float(dtype) || dtype == DType::kI64 || dtype == DType::kI32 || dtype == DType::kI16 ||
         dtype == DType::kI8 || dtype == DType::kU8 || dtype == DType::kBool || dtype == DType::kC64;
}

void write(const std::string& path, const SourceModel& model, const Scheme& scheme, const TorchZipOptions& options,
           const TensorBytes& tensors = scrambled_bytes) {
  const auto plan = plan_torch_zip(model, scheme, options);
  if (!plan) {
    throw std::runtime_error(plan.error().message);
  }
  write_checkpoint(**plan, path, tensors);
  std::printf("%s\n", path.c_str());
}

void write_all(const std::string& folder) {
  const TestScheme copy("copy", [](const TensorInfo& tensor) { return copy_encoding(tensor); });
  const TestScheme int8("int8", int8_encoding);
  const TestScheme odd("odd", odd_encoding);
  std::mt19937_64 random(3);

  SourceModel modern = random_model(random, 120);
  SourceModel portable = modern;
  std::erase_if(portable.tensors, [](const TensorInfo& tensor) { return !is_portable(tensor.dtype); });
  write(folder + "/portable.bin", portable, copy, {});
  write(folder + "/portable64.bin", portable, int8, {64, 0, false, true});
  write(folder + "/modern.bin", modern, copy, {});
  write(folder + "/mixed_int8.bin", modern, int8, {});
  write(folder + "/mixed_odd.bin", modern, odd, {});
  write(folder + "/none.bin", make_model({}), copy, {});

  const SourceModel vast =
      make_model({make_tensor("first", DType::kF32, {5}), make_tensor("vast", DType::kF16, {5, 1024, 512, 1024}),
                  make_tensor("after", DType::kF8E4M3, {3, 2}), make_tensor("last", DType::kI64, {})});
  write(folder + "/vast.bin", vast, copy, {},
        [](uint32_t group, uint32_t stored, uint64_t offset, std::span<std::byte> out) {
          (group == 1 ? zero_bytes : scrambled_bytes)(group, stored, offset, out);
        });

  constexpr int kMany = 70003;
  std::vector<TensorInfo> tensors;
  tensors.reserve(kMany);
  for (int i = 0; i < kMany; ++i) {
    tensors.push_back(make_tensor("model.layers." + std::to_string(i) + ".weight", DType::kBF16, {2, 1}));
  }
  write(folder + "/many.bin", make_model(std::move(tensors)), copy, {64, 0, true, true});
}

}  // namespace
}  // namespace qcache

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: dump_torch_zip FOLDER\n");
    return 2;
  }
  try {
    qcache::write_all(argv[1]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "dump_torch_zip: %s\n", error.what());
    return 1;
  }
  return 0;
}

// Saves and loads quantized models from C++:
//
//   qcache_example save FOLDER SOURCE DTYPE...    saves the model in FOLDER in these dtypes
//   qcache_example load FOLDER SOURCE DTYPE...    loads it, and tells how near it is to the original
//   qcache_example save-changed ...               fails: a changed model is not the folder's any more
//
// A program of its own would have the model's tensors already. This one takes them from the cache too: SOURCE is a
// dtype without loss (bf16 for a bf16 model) that is cached. QWEN_CACHE names the cache directory.

#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include <cmath>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "core/qcache.h"
#include "core/torch/quantized_model.h"

namespace {

/// A module with these parameters, and an output head that shares the embedding's.
class Model : public torch::nn::Module {
 public:
  explicit Model(const qcache::TensorMap& tensors) {
    for (const auto& [name, tensor] : tensors) {
      module_of(name).register_parameter(name.substr(name.rfind('.') + 1), tensor, /*requires_grad=*/false);
    }
    const std::string head = "lm_head.weight";
    if (const auto embedding = tensors.find("model.embed_tokens.weight");
        embedding != tensors.end() && !tensors.contains(head)) {
      module_of(head).register_parameter("weight", embedding->second, /*requires_grad=*/false);
    }
  }

 private:
  class Part : public torch::nn::Module {};

  torch::nn::Module& module_of(const std::string& name) {
    torch::nn::Module* module = this;
    size_t start = 0;
    for (size_t dot = name.find('.'); dot != std::string::npos; dot = name.find('.', start)) {
      const std::string part = name.substr(start, dot - start);
      const auto children = module->named_children();
      module = children.contains(part) ? children[part].get()
                                       : module->register_module(part, std::make_shared<Part>()).get();
      start = dot + 1;
    }
    return *module;
  }
};

/// Ends the program with the reason where something failed.
template <typename T>
T value(qcache::Result<T> result) {
  if (!result) {
    std::cerr << "qcache_example: " << result.error().message << '\n';
    std::exit(1);
  }
  if constexpr (!std::is_void_v<T>) {
    return std::move(*result);
  }
}

std::string cache_path(const std::string& folder, const std::string& dtype) {
  return value(qcache::get_quantized_model_cache_path(folder, dtype, 0));
}

/// Loads what is stored. libtorch before 2.2 has no float8, so that not every dtype can be had so.
void show_stored(const std::string& path) {
  qcache::TensorMap stored;
  const qcache::Status loaded = qcache::load_quantized_model(stored, path);
  if (!loaded && loaded.error().kind == qcache::ErrorKind::kUnsupported) {
    std::cout << loaded.error().message << '\n';
    return;
  }
  value(loaded);
  for (const auto& [name, tensor] : stored) {
    std::cout << "stored " << name << ' ' << tensor.scalar_type() << ' ' << tensor.sizes() << '\n';
  }
}

/// Loads into a module that has nothing yet, and compares it with the original.
void load(const std::string& path, const qcache::TensorMap& original) {
  qcache::TensorMap empty;
  for (const auto& [name, tensor] : original) {
    empty[name] = at::full_like(tensor, std::nan(""));
  }
  Model module(empty);
  value(qcache::load_quantized_model(module, path));
  double signal = 0;
  double noise = 1e-30;  // a copy has none
  for (const auto& item : module.named_parameters()) {
    const auto found = original.find(item.key());
    if (found == original.end()) {
      continue;  // the tied head
    }
    const at::Tensor wanted = found->second.to(at::kDouble);
    signal += wanted.square().sum().item<double>();
    noise += (item.value().to(at::kDouble) - wanted).square().sum().item<double>();
  }
  std::cout << "sqnr " << 10 * std::log10(signal / noise) << '\n';
}

void save(const std::string& folder, const std::string& dtype, const qcache::TensorMap& tensors) {
  const std::string path = cache_path(folder, dtype);
  value(qcache::save_quantized_model(Model(tensors), path, {.model_path = folder, .weight_dtype = dtype}));
  std::cout << "saved " << path << ", valid: " << value(qcache::validate_cache_integrity(path)) << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    std::cerr << "usage: qcache_example save|load FOLDER SOURCE DTYPE...\n";
    return 2;
  }
  const std::string command = argv[1];
  const std::string folder = argv[2];
  qcache::TensorMap original;
  value(qcache::load_quantized_model(original, cache_path(folder, argv[3])));
  if (command == "save-changed") {
    original.begin()->second.add_(1);  // in this program's memory only
  }
  for (const std::string& dtype : std::vector<std::string>(argv + 4, argv + argc)) {
    std::cout << dtype << '\n';
    if (command == "load") {
      show_stored(cache_path(folder, dtype));
      load(cache_path(folder, dtype), original);
    } else {
      save(folder, dtype, original);
    }
  }
  return 0;
}

#pragma once

// Saving and loading quantized models from C++ programs that use libtorch. Beside core/qcache.h, whose
// get_quantized_model_cache_path() gives the paths: they name files of the same cache directory that mounts use, so
// what one makes the other serves.
//
//   const qcache::ModelSource source{.model_path = "/srv/models/m", .weight_dtype = "int8"};
//   const auto path = qcache::get_quantized_model_cache_path(source.model_path, source.weight_dtype, source.rank);
//   qcache::save_quantized_model(*module, *path, source);
//   qcache::load_quantized_model(*module, *path);
//
// All functions are thread-safe as long as nobody else changes the tensors given to them. They throw nothing: what
// libtorch throws becomes an error. What they have to tell besides goes to spdlog's default logger.

#include <ATen/core/ivalue.h>  // at::Tensor; clang cannot read its header unless this one comes first

#include <map>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "core/qcache.h"

namespace torch::nn {
class Module;
}

namespace qcache {

using TensorMap = std::map<std::string, at::Tensor>;

/// Quantizes a model and saves it at `cache_path`, complete and verified; returns quickly where that is done already.
/// Of a module its parameters and buffers count, by their full names. Tensors of any device, contiguous or not.
///
/// Where the folder `source.model_path` holds weights, the model has to be that one, tensor for tensor, as it was
/// loaded (tied tensors may have names that the folder lacks); the file is then, byte for byte, what mounts serve for
/// the folder. Where it holds none (an empty folder, or one with only a config.json), any model can be saved; mounts do
/// not show it. Ranks above 0 are for mounts to make.
///
/// kInvalidArgument where `cache_path` is not that of `source`, the model is not the folder's, or a tensor is of a kind
/// that cannot be saved; kUnsupported where the model cannot be had in this dtype or rank; kNotFound where there is no
/// such folder; kSourceChanged, kNoSpace and kIo as a read in a mount.
Status save_quantized_model(const TensorMap& model, const std::string& cache_path, const ModelSource& source);
Status save_quantized_model(const torch::nn::Module& model, const std::string& cache_path, const ModelSource& source);

/// Replaces `model` by what is stored at `cache_path`: codes, scales and dense tensors under the names that torch.load
/// gives them. Nothing is read yet: the tensors are views of the mapped file, which stays in use as long as any of
/// them. Writing to one does not change the file. kNotFound where nothing is cached there, or only what a former state
/// of the model made; kCorrupt where its bytes are not those that were saved; kUnsupported where this libtorch lacks a
/// dtype.
Status load_quantized_model(TensorMap& model, const std::string& cache_path);

/// Tensors that only one side has, by name.
struct NameDifferences {
  std::vector<std::string> missing;     ///< of the module, not in the file, under none of its names where it is tied
  std::vector<std::string> unexpected;  ///< in the file, not of the module
};
enum class Names {
  kAllMustMatch,  ///< kInvalidArgument where a name is missing or unexpected
  kMayDiffer,     ///< what both sides have is loaded
};

/// Writes the values that are stored at `cache_path`, dequantized, into the parameters and buffers of `model`, in the
/// dtypes and on the devices that those have. Errors as above, and kInvalidArgument where shapes differ; the module is
/// then as it was.
Result<NameDifferences> load_quantized_model(torch::nn::Module& model, const std::string& cache_path,
                                             Names names = Names::kAllMustMatch);

}  // namespace qcache

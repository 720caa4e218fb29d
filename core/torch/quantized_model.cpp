#include "core/torch/quantized_model.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <torch/nn/module.h>
#include <torch/version.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <optional>
#include <unordered_set>
#include <utility>

#include "core/base/env.h"
#include "core/program/cached_model.h"
#include "core/program/program_model.h"

namespace qcache {
namespace {

struct DTypePair {
  DType ours;
  at::ScalarType theirs;
};
constexpr DTypePair kDTypes[] = {
    {DType::kF64, at::kDouble},
    {DType::kF32, at::kFloat},
    {DType::kF16, at::kHalf},
    {DType::kBF16, at::kBFloat16},
    {DType::kI64, at::kLong},
    {DType::kI32, at::kInt},
    {DType::kI16, at::kShort},
    {DType::kI8, at::kChar},
    {DType::kU8, at::kByte},
    {DType::kBool, at::kBool},
    {DType::kC64, at::kComplexFloat},
    {DType::kC128, at::kComplexDouble},
    {DType::kC32, at::kComplexHalf},
#if TORCH_VERSION_MAJOR * 100 + TORCH_VERSION_MINOR >= 202
    {DType::kF8E4M3, at::kFloat8_e4m3fn},
    {DType::kF8E5M2, at::kFloat8_e5m2},
    {DType::kF8E4M3Fnuz, at::kFloat8_e4m3fnuz},
    {DType::kF8E5M2Fnuz, at::kFloat8_e5m2fnuz},
#endif
#if TORCH_VERSION_MAJOR * 100 + TORCH_VERSION_MINOR >= 203
    {DType::kU64, at::kUInt64},
    {DType::kU32, at::kUInt32},
    {DType::kU16, at::kUInt16},
#endif
#if TORCH_VERSION_MAJOR * 100 + TORCH_VERSION_MINOR >= 207
    {DType::kF8E8M0, at::kFloat8_e8m0fnu},
#endif
#if TORCH_VERSION_MAJOR * 100 + TORCH_VERSION_MINOR >= 208
    {DType::kF4, at::kFloat4_e2m1fn_x2},
#endif
};

/// Runs `work`; what it throws becomes an error.
template <typename Work>
auto without_exceptions(const std::string& cache_path, const Work& work) -> decltype(work()) {
  try {
    return work();
  } catch (const c10::Error& error) {
    return fail(ErrorKind::kInternal, cache_path + ": libtorch failed: " + error.what_without_backtrace());
  } catch (const std::exception& error) {
    return fail(ErrorKind::kInternal, cache_path + ": " + error.what());
  }
}

TensorMap tensors_of(const torch::nn::Module& module) {
  TensorMap tensors;
  for (const auto& named : {module.named_parameters(), module.named_buffers()}) {
    for (const auto& item : named) {
      if (item.value().defined()) {
        tensors.emplace(item.key(), item.value());
      }
    }
  }
  return tensors;
}

Shape shape_of(const at::Tensor& tensor) {
  return {tensor.sizes().begin(), tensor.sizes().end()};
}

/// `kept` is the tensor itself or its copy in this machine's memory.
Result<ProgramTensor> program_tensor(const std::string& name, const at::Tensor& tensor, at::Tensor& kept) {
  const auto unfit = [&](const std::string& what) {
    return fail(ErrorKind::kInvalidArgument, "tensor '" + name + "' cannot be saved: " + what);
  };
  if (!tensor.defined() || tensor.is_meta()) {
    return unfit("it has no data");
  }
  if (tensor.layout() != at::kStrided || tensor.is_quantized()) {
    return unfit("it is sparse or quantized already");
  }
  const auto* const pair = std::ranges::find(kDTypes, tensor.scalar_type(), &DTypePair::theirs);
  if (pair == std::end(kDTypes)) {
    return unfit(std::string("qcache does not store ") + c10::toString(tensor.scalar_type()));
  }
  kept = tensor.detach().cpu();
  if (kept.is_neg() || kept.is_conj()) {
    kept = kept.resolve_conj().resolve_neg();
  }
  ProgramTensor out;
  out.name = name;
  out.dtype = pair->ours;
  out.shape = shape_of(kept);
  uint64_t elements = kept.numel() == 0 ? 0 : 1;  // from the first to the last
  if (!kept.is_contiguous() && kept.numel() > 0) {
    out.strides.assign(kept.strides().begin(), kept.strides().end());
    for (int64_t i = 0; i < kept.dim(); ++i) {
      elements += static_cast<uint64_t>((kept.size(i) - 1) * kept.stride(i));
    }
  } else {
    elements = static_cast<uint64_t>(kept.numel());
  }
  out.bytes = std::span(static_cast<const std::byte*>(kept.data_ptr()), elements * item_bytes(out.dtype));
  return out;
}

/// A stored tensor as a view of the file.
Result<at::Tensor> view(const std::shared_ptr<const CachedModel>& file, const TensorInfo& stored) {
  const auto* const pair = std::ranges::find(kDTypes, stored.dtype, &DTypePair::ours);
  if (pair == std::end(kDTypes)) {
    return fail(ErrorKind::kUnsupported, "this libtorch has no " + std::string(torch_name(stored.dtype)) +
                                             ", which is the dtype of '" + stored.name + "': use a newer one");
  }
  const std::vector<int64_t> sizes(stored.shape.begin(), stored.shape.end());
  return at::from_blob(
      file->bytes_of(stored).data(), sizes, [file](void*) {}, at::dtype(pair->theirs));
}

/// A tensor of the module, and what is to be written there.
struct Assignment {
  at::Tensor to;
  PlaceInFile from;
  at::Tensor dense;
};

void assign(const Assignment& assignment) {
  if (assignment.dense.defined()) {
    assignment.to.copy_(assignment.dense);
    return;
  }
  const bool in_place = assignment.to.is_cpu() && assignment.to.is_contiguous() &&
                        assignment.to.scalar_type() == at::kFloat && !assignment.to.is_neg();
  const at::Tensor values = in_place ? assignment.to : at::empty(assignment.to.sizes(), at::dtype(at::kFloat));
  assignment.from.decode(std::span(values.data_ptr<float>(), static_cast<size_t>(values.numel())));
  if (!in_place) {
    assignment.to.copy_(values);
  }
}

std::string first_of(const std::vector<std::string>& names) {
  return "'" + names.front() + "'" +
         (names.size() > 1 ? " and " + std::to_string(names.size() - 1) + " more" : std::string());
}

Status check_alike(const NameDifferences& differences, const std::string& cache_path) {
  if (!differences.missing.empty()) {
    return fail(ErrorKind::kInvalidArgument,
                "the module has " + first_of(differences.missing) + ", which " + cache_path + " has not");
  }
  if (!differences.unexpected.empty()) {
    return fail(ErrorKind::kInvalidArgument,
                cache_path + " has " + first_of(differences.unexpected) + ", which the module has not");
  }
  return {};
}

}  // namespace

Status save_quantized_model(const TensorMap& model, const std::string& cache_path, const ModelSource& source) {
  return without_exceptions(cache_path, [&]() -> Status {
    std::vector<ProgramTensor> tensors;
    std::vector<at::Tensor> kept(model.size());
    for (const auto& [name, tensor] : model) {
      QCACHE_TRY_ASSIGN(tensors.emplace_back(), program_tensor(name, tensor, kept.at(tensors.size())));
    }
    return save_program_model(Env::posix(), tensors, cache_path, source);
  });
}

Status save_quantized_model(const torch::nn::Module& model, const std::string& cache_path, const ModelSource& source) {
  return without_exceptions(cache_path, [&] { return save_quantized_model(tensors_of(model), cache_path, source); });
}

Status load_quantized_model(TensorMap& model, const std::string& cache_path) {
  return without_exceptions(cache_path, [&]() -> Status {
    QCACHE_TRY_ASSIGN(const std::shared_ptr<const CachedModel> file, CachedModel::open(Env::posix(), cache_path));
    TensorMap loaded;
    for (const TensorInfo& stored : file->stored_tensors()) {
      QCACHE_TRY_ASSIGN(loaded[stored.name], view(file, stored));
    }
    model = std::move(loaded);
    return {};
  });
}

Result<NameDifferences> load_quantized_model(torch::nn::Module& model, const std::string& cache_path, Names names) {
  return without_exceptions(cache_path, [&]() -> Result<NameDifferences> {
    QCACHE_TRY_ASSIGN(const std::shared_ptr<const CachedModel> file, CachedModel::open(Env::posix(), cache_path));
    NameDifferences differences;
    std::vector<Assignment> assignments;
    std::unordered_set<const void*> assigned;  // tied tensors once
    const TensorMap tensors = tensors_of(model);
    for (const auto& [name, tensor] : tensors) {
      auto place = file->find(name, shape_of(tensor));
      if (!place && place.error().kind == ErrorKind::kNotFound) {
        differences.missing.push_back(name);
        continue;
      }
      QCACHE_TRY(place);
      at::Tensor dense;
      if (place->dense != nullptr) {
        QCACHE_TRY_ASSIGN(dense, view(file, *place->dense));
      }
      if (tensor.numel() == 0 || assigned.insert(tensor.data_ptr()).second) {
        assignments.push_back({tensor, std::move(*place), dense});
      }
    }
    std::erase_if(differences.missing,
                  [&](const std::string& name) { return assigned.contains(tensors.at(name).data_ptr()); });
    std::ranges::copy_if(file->model_tensors(), std::back_inserter(differences.unexpected),
                         [&](const std::string& name) { return !tensors.contains(name); });
    if (names == Names::kAllMustMatch) {
      QCACHE_TRY(check_alike(differences, cache_path));
    }
    at::parallel_for(0, static_cast<int64_t>(assignments.size()), 1, [&](int64_t first, int64_t end) {
      const c10::NoGradGuard values_only;  // of this thread
      for (int64_t i = first; i < end; ++i) {
        assign(assignments[static_cast<size_t>(i)]);
      }
    });
    return differences;
  });
}

}  // namespace qcache

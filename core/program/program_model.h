#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "core/base/env.h"
#include "core/base/result.h"
#include "core/model/tensor.h"
#include "core/qcache.h"

namespace qcache {

/// A tensor in the memory of the calling program.
struct ProgramTensor {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  std::vector<uint64_t> strides;  ///< in elements, as TensorInfo::strides
  /// From its first element to the end of its last. Must not change while it is saved.
  std::span<const std::byte> bytes;
};

/// Quantizes the tensors of a model and seals the file at `cache_path`, in as many threads as there are cores; nothing
/// is made where it is sealed already.
///
/// Where the folder `source.model_path` holds weights the file is the one that mounts serve for that model, so the
/// tensors have to be the folder's: same names, dtypes, shapes and bytes, all of which is looked at (the folder is read
/// once); only one more name for the same memory is passed over. Where it holds none the tensors are the model (with
/// the folder's config.json, if there is one), and the digest of their content is what later calls go by.
/// kInvalidArgument where `cache_path` is not the path of `source`, or the tensors are not the folder's; kUnsupported
/// where the model cannot be had in this dtype or rank; kNotFound where there is no such folder; kSourceChanged,
/// kNoSpace, kIo as in a mount.
Status save_program_model(Env& env, const std::vector<ProgramTensor>& tensors, const std::string& cache_path,
                          const ModelSource& source);

}  // namespace qcache

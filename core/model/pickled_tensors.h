#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "core/model/pickle_value.h"
#include "core/model/tensor.h"

namespace qcache {

/// What a torch pickle says of one storage: the bytes that tensors are views of. Texts are valid as long as the graph.
struct PickledStorage {
  std::string_view key;        ///< names the bytes in the file
  std::string_view type;       ///< "FloatStorage"
  std::optional<DType> dtype;  ///< none for untyped storages and for types that qcache does not know
  uint64_t items = 0;          ///< bytes where it is untyped
  friend bool operator==(const PickledStorage&, const PickledStorage&) = default;
};

/// What a torch pickle says of one tensor: a view of a storage. Nothing is checked against a file yet.
struct PickledTensor {
  std::string_view name;
  PickledStorage storage;
  DType dtype = DType::kF32;
  uint64_t offset = 0;  ///< of its first element, in elements
  Shape shape;
  std::vector<uint64_t> strides;  ///< one per extent, in elements
  friend bool operator==(const PickledTensor&, const PickledTensor&) = default;
};

/// The storage that a kPersistent value names. kInvalidModel where it names anything else.
Result<PickledStorage> pickled_storage(const PickleGraph& graph, PickleRef persistent);

/// The tensors of the state dict that the pickle stands for, in its order: those that are values of the dictionary
/// itself or, where its key "state_dict" (else "model") holds a dictionary with tensors, of that one. Values that are
/// no tensors, other dictionaries among them, are left out. nn.Parameter is a tensor like any other.
///
/// Fails with kInvalidModel, naming the tensor, where one is of a kind or dtype that qcache does not know (quantized,
/// sparse, a subclass) or is described in contradictory terms; where there is no dictionary with tensors; and
/// where two different tensors have one name or a name is longer than 64 KiB or not UTF-8.
Result<std::vector<PickledTensor>> pickled_tensors(const PickleGraph& graph);

}  // namespace qcache

#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/model/dtype.h"

namespace qcache {

/// The pickle of a torch checkpoint: one plain dict of contiguous tensors, each alone in its storage.
///
/// Only opcodes and globals that every reader takes: Python's pickle, `weights_only=True` since torch 1.13,
/// and libtorch's C++ unpickler (which knows no OrderedDict, hence the plain dict). Types that torch has no
/// typed storage for (float8, uint16 and wider) use `_rebuild_tensor_v3`, which only Python knows, since
/// torch 2.2. There are no floats in it: torch 1.13 refuses their opcode. Not thread-safe.
class TorchPickle {
 public:
  TorchPickle();

  /// Adds a tensor whose storage, the record `data/<n>` for the n-th call, is `storage_bytes` long: as long
  /// as the record, not as the tensor, because torch 2.10 refuses a record of another length. False, with
  /// nothing added, where the shape's extents or strides do not fit torch's signed 64 bits.
  [[nodiscard]] bool add(std::string_view name, DType dtype, std::span<const uint64_t> shape, uint64_t storage_bytes);

  /// Bytes of the pickle of what was added.
  [[nodiscard]] uint64_t size() const;
  /// Forgets what was added, but not how much it was: for who asks for no more than the size.
  void forget();

  /// The pickle of what was added. Leaves this object empty of use.
  [[nodiscard]] std::string finish() &&;

 private:
  std::string out_;
  uint64_t count_ = 0;
  uint64_t forgotten_ = 0;  ///< bytes
};

}  // namespace qcache

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/base/byte_range.h"
#include "core/model/dtype.h"

namespace qcache {

/// Extent per dimension in items (dtype.h), outermost first; empty for a scalar.
using Shape = std::vector<uint64_t>;

class SourceEncoding;

/// One tensor of a source model: as its file's header describes it, unless it has an encoding.
/// Whoever builds one has checked that all its elements lie inside the file and that
/// `data.size == element_count() * item_bytes(dtype)` without overflow.
struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  uint32_t file = 0;  ///< index into SourceModel::files
  /// Its absolute range in that file. With strides only the position of its first element: the others lie where the
  /// strides say, and `size` is still the number of bytes in the tensor.
  ByteRange data;
  /// In elements, one per extent: how far apart neighbours in that dimension lie. Empty where the tensor is row-major
  /// and contiguous, as nearly all are; else 0 (an expanded extent) and any other distance are possible.
  std::vector<uint64_t> strides = {};
  /// Where its values are not stored as they are (source_encoding.h): how, and in which tensors. `data` and `file` are
  /// those of the first then.
  const SourceEncoding* encoding = nullptr;
  std::shared_ptr<const std::vector<TensorInfo>> parts = nullptr;

  [[nodiscard]] uint64_t element_count() const {
    uint64_t count = 1;
    for (const uint64_t extent : shape) {
      count *= extent;
    }
    return count;
  }
};

}  // namespace qcache

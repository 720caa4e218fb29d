#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/byte_range.h"
#include "core/model/dtype.h"

namespace qcache {

/// Extent per dimension, outermost first; empty for a scalar.
using Shape = std::vector<uint64_t>;

/// One tensor of a source model, as its file's header describes it. Row-major and contiguous.
/// Whoever builds one has checked that `data` lies inside the file and that
/// `data.size == element_count() * item_bytes(dtype)` without overflow.
struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  uint32_t file = 0;  ///< index into SourceModel::files
  ByteRange data;     ///< absolute range in that file

  [[nodiscard]] uint64_t element_count() const {
    uint64_t count = 1;
    for (const uint64_t extent : shape) {
      count *= extent;
    }
    return count;
  }
};

}  // namespace qcache

#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "core/quant/number_formats.h"

namespace qcache {

/// Consecutive elements of a source, read one by one as fp32.
class Values {
 public:
  Values(DType dtype, const std::byte* data, uint64_t count)
      : dtype_(dtype), data_(data), count_(count), stride_(item_bytes(dtype)) {}

  [[nodiscard]] DType dtype() const { return dtype_; }
  [[nodiscard]] uint64_t count() const { return count_; }
  [[nodiscard]] float operator[](uint64_t index) const { return load_as_float(dtype_, data_ + index * stride_); }
  [[nodiscard]] Values slice(uint64_t first, uint64_t count) const { return {dtype_, data_ + first * stride_, count}; }
  /// Largest magnitude among the finite values; 0 where there is none.
  [[nodiscard]] float finite_amax() const {
    float amax = 0;
    for (uint64_t i = 0; i < count_; ++i) {
      const float magnitude = std::fabs((*this)[i]);
      if (std::isfinite(magnitude) && magnitude > amax) {
        amax = magnitude;
      }
    }
    return amax;
  }

 private:
  DType dtype_;
  const std::byte* data_;
  uint64_t count_;
  uint64_t stride_;
};

}  // namespace qcache

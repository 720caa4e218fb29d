#pragma once

#include <cstddef>
#include <cstdint>

#include "core/quant/encoding.h"

namespace qcache {

/// The rows of a call whose stored tensors 0 and 1 get a fixed number of bytes per row. Where rows are cut into groups,
/// each group is a row here.
struct Rows {
  uint64_t count = 0;
  uint64_t elements = 0;  ///< per row
  const std::byte* source = nullptr;
  uint64_t source_stride = 0;
  std::byte* codes = nullptr;
  uint64_t codes_stride = 0;
  std::byte* scales = nullptr;
  uint64_t scales_stride = 0;

  explicit Rows(const EncodeArgs& args)
      : elements(args.group_elements != 0 ? args.group_elements : args.row_elements),
        source(args.source.data()),
        source_stride(elements * item_bytes(args.source_dtype)),
        codes(args.stored[0].data()),
        scales(args.stored[1].data()) {
    count = source_stride == 0 ? 0 : args.source.size() / source_stride;
    if (count != 0) {
      codes_stride = args.stored[0].size() / count;
      scales_stride = args.stored[1].size() / count;
    }
  }

  /// Calls row(source, codes, scales) for each row in order.
  template <typename Row>
  void for_each(const Row& row) const {
    for (uint64_t i = 0; i < count; ++i) {
      row(source + i * source_stride, codes + i * codes_stride, scales + i * scales_stride);
    }
  }
};

}  // namespace qcache

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "core/quant/encoding.h"
#include "core/quant/quantizer.h"

namespace qcache {

/// Calls square(first source byte, bytes to the next source row, first code, bytes to the next row of codes, scale) for
/// each square of an fp8-block call, row by row of squares.
template <typename Square>
void for_each_fp8_square(const EncodeArgs& args, const Square& square) {
  const uint64_t item = item_bytes(args.source_dtype);
  const uint64_t source_stride = args.row_elements * item;
  const uint64_t columns = args.row_elements / kFp8BlockSide;
  const uint64_t rows = source_stride == 0 ? 0 : args.source.size() / (source_stride * kFp8BlockSide);
  for (uint64_t row = 0; row < rows; ++row) {
    const std::byte* source = args.source.data() + row * kFp8BlockSide * source_stride;
    std::byte* codes = args.stored[0].data() + row * kFp8BlockSide * args.row_elements;
    std::byte* scales = args.stored[1].data() + row * columns * sizeof(float);
    for (uint64_t column = 0; column < columns; ++column) {
      square(source + column * kFp8BlockSide * item, source_stride, codes + column * kFp8BlockSide, args.row_elements,
             scales + column * sizeof(float));
    }
  }
}

/// Calls run(source, elements, codes, absmax codes, nested absmax) for each unit of an nf4-dq call: kNestedElements
/// elements, fewer at the tensor's end.
template <typename Run>
void for_each_nested(const EncodeArgs& args, const Run& run) {
  const uint64_t item = item_bytes(args.source_dtype);
  const uint64_t elements = args.source.size() / item;
  for (uint64_t first = 0; first < elements; first += kNestedElements) {
    run(args.source.data() + first * item, std::min(kNestedElements, elements - first),
        args.stored[0].data() + first / 2, args.stored[1].data() + first / kNf4BlockElements,
        args.stored[2].data() + first / kNestedElements * sizeof(float));
  }
}

/// Calls pair(first group, second group or null, codes, first scale, first shift, bytes to the second's scale and
/// shift) for each pair of groups of a qint4 call. The second ones follow all first ones.
template <typename Pair>
void for_each_qint4_pair(const EncodeArgs& args, const Pair& pair) {
  const uint64_t group_bytes = args.group_elements * item_bytes(args.source_dtype);
  const uint64_t pairs = args.stored[0].size() / args.group_elements;
  const uint64_t groups = args.source.size() / group_bytes;
  const uint64_t scale_bytes = item_bytes(scale_dtype(args.source_dtype));
  for (uint64_t i = 0; i < pairs; ++i) {
    const std::byte* second = pairs + i < groups ? args.source.data() + (pairs + i) * group_bytes : nullptr;
    pair(args.source.data() + i * group_bytes, second, args.stored[0].data() + i * args.group_elements,
         args.stored[1].data() + i * scale_bytes, args.stored[2].data() + i * scale_bytes, pairs * scale_bytes);
  }
}

}  // namespace qcache

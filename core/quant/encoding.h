#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/base/byte_range.h"
#include "core/model/tensor.h"

namespace qcache {

/// One tensor that a scheme stores for a source tensor, such as `q_proj.weight_scale`.
struct StoredTensor {
  std::string name;
  DType dtype = DType::kU8;
  Shape shape;
  /// The bytes, where they follow from the plan alone (a code table, a shape, a JSON state). Such a tensor is
  /// never produced by a kernel. Empty for tensors made from weights.
  std::string constant;
  /// Bytes that one unit of the source makes; 0 for constants.
  uint64_t bytes_per_unit = 0;

  [[nodiscard]] uint64_t size_bytes() const;
};

/// Consecutive units [first, first + count) of one encoding.
struct UnitRange {
  uint64_t first = 0;
  uint64_t count = 0;
  [[nodiscard]] uint64_t end() const { return first + count; }
};

/// What a kernel works on: whole units of one tensor.
struct EncodeArgs {
  DType source_dtype = DType::kF32;
  uint64_t row_elements = 0;          ///< elements per unit of `source`
  std::span<const std::byte> source;  ///< the units' source bytes, in order
  /// Where the units' bytes of each stored tensor go, by its index in Encoding::stored; empty spans for
  /// constants.
  std::span<const std::span<std::byte>> stored;
};

/// Makes stored bytes from source rows. Pure; safe to call from any number of threads; never fails: every
/// input value, NaN and infinities included, has a defined code (docs/SCHEMES.md).
using EncodeFunction = void (*)(const EncodeArgs& args);

/// How one source tensor is stored: which tensors, and in which independent units they are computed.
///
/// A unit is the least that can be produced alone: one row for per-row schemes, one run of elements for casts
/// and copies. Units map in order: unit u of the source makes bytes [u * k, (u+1) * k) of each stored tensor,
/// the last unit being possibly shorter. Callers go through the functions below and never assume this, so
/// that a scheme with another order (packing across rows) changes only this type.
struct Encoding {
  std::vector<StoredTensor> stored;
  EncodeFunction encode = nullptr;
  DType source_dtype = DType::kF32;
  uint64_t source_bytes = 0;           ///< of the whole source tensor
  uint64_t source_bytes_per_unit = 0;  ///< > 0, also for empty tensors
  uint64_t row_elements = 0;           ///< elements per unit
  bool quantized = false;              ///< false: the values are copied or cast

  /// Units in the tensor; 0 where it is empty.
  [[nodiscard]] uint64_t unit_count() const;
  /// Bytes of the source tensor (relative to its start) that the units need, in the order the kernel wants.
  [[nodiscard]] std::vector<ByteRange> source_ranges(UnitRange units) const;
  /// Bytes of stored tensor `index` (relative to its start) that the units make, in the kernel's order.
  [[nodiscard]] std::vector<ByteRange> stored_ranges(size_t index, UnitRange units) const;
  /// The unit that makes byte `offset` of stored tensor `index` (not a constant).
  [[nodiscard]] uint64_t unit_at(size_t index, uint64_t offset) const;
};

}  // namespace qcache

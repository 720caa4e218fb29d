#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/base/byte_range.h"
#include "core/model/tensor.h"

namespace qcache {

/// What one pass over a whole tensor finds out, for schemes whose every byte depends on all of it.
struct Survey {
  float amax = 0;      ///< largest finite magnitude
  double sum = 0;      ///< of what the scheme averages
  uint64_t count = 0;  ///< of its terms

  [[nodiscard]] float mean() const { return count == 0 ? 0.0F : static_cast<float>(sum / static_cast<double>(count)); }
};

/// Where in a tensor the bytes of unit u lie, with k bytes for each piece.
enum class UnitOrder : uint8_t {
  kConsecutive,  ///< [u * k, (u + 1) * k)
  /// The pieces u and (number of units) + u, in the two halves of the tensor. The last unit lacks its second piece
  /// where the number of pieces is odd.
  kFolded,
  kOnce,  ///< all of them are unit 0's
};

/// One tensor that a scheme stores for a source tensor, such as `q_proj.weight_scale`.
struct StoredTensor {
  std::string name;
  DType dtype = DType::kU8;
  Shape shape;
  /// The bytes, where they follow from the plan alone (a code table, a shape, a JSON state). Such a tensor is
  /// never produced by a kernel. Empty for tensors made from weights.
  std::string constant = {};
  /// Bytes of one piece; 0 for constants and for tensors made once.
  uint64_t bytes_per_unit = 0;
  UnitOrder order = UnitOrder::kConsecutive;
  /// kOnce: makes all bytes from what is known of the whole tensor.
  std::function<std::string(const Survey& survey)> once = nullptr;

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
  uint64_t row_elements = 0;               ///< as in Encoding
  uint64_t group_elements = 0;             ///< as in Encoding
  std::span<const std::byte> source = {};  ///< the units' source bytes, in the order of Encoding::source_ranges
  /// Where the units' bytes of each stored tensor go, by its index in Encoding::stored, in the order of
  /// Encoding::stored_ranges; empty spans for constants and for tensors made once.
  std::span<const std::span<std::byte>> stored = {};
  const Survey* survey = nullptr;  ///< of the whole tensor, where the encoding needs one
};

/// Makes stored bytes from source rows. Pure; safe to call from any number of threads; never fails: every
/// input value, NaN and infinities included, has a defined code (docs/SCHEMES.md).
using EncodeFunction = void (*)(const EncodeArgs& args);

/// The way back, for the same units.
struct DecodeArgs {
  DType source_dtype = DType::kF32;
  uint64_t row_elements = 0;
  uint64_t group_elements = 0;
  /// As EncodeArgs::stored; without a survey, also the tensors made once.
  std::span<const std::span<const std::byte>> stored = {};
  const Survey* survey = nullptr;
  std::span<float> values = {};  ///< one for each source element of the units
};

/// The values that stored bytes stand for, in fp32 as the loaders compute them. Pure; any thread.
using DecodeFunction = void (*)(const DecodeArgs& args);

/// Adds what is in these source bytes (whole units, of the given type) to the survey. Calls are made in the tensor's
/// order; how it is cut into calls must not matter.
using SurveyFunction = void (*)(DType source_dtype, std::span<const std::byte> source, Survey& survey);

/// How one source tensor is stored: which tensors, and in which independent units they are computed.
///
/// A unit is the least that can be produced alone: one row for per-row schemes, a run of elements for casts, copies
/// and where blocks run across rows, 128 rows where blocks are square, two groups far apart where their codes share
/// bytes. The source and each stored tensor consist of pieces of fixed size (the last one possibly shorter) that
/// belong to units as their UnitOrder says; callers go through the functions below and assume nothing else.
///
/// Where `survey` is set, every unit also depends on the survey of the whole tensor, which has to be made first.
///
/// LoRA factors (factors.h) are one unit without a kernel: they come from the whole weight and from `factored`, which
/// tells how that weight itself is stored.
struct Encoding {
  std::vector<StoredTensor> stored;
  EncodeFunction encode = nullptr;
  DecodeFunction decode = nullptr;  ///< set where `quantized`
  SurveyFunction survey = nullptr;  ///< null: no unit needs one
  DType source_dtype = DType::kF32;
  uint64_t source_bytes = 0;           ///< of the whole source tensor
  uint64_t source_bytes_per_unit = 0;  ///< of one piece; > 0, also for empty tensors
  UnitOrder source_order = UnitOrder::kConsecutive;
  uint64_t row_elements = 0;    ///< elements in a row, as the kernel sees it
  uint64_t group_elements = 0;  ///< elements per scale within a row, where the scheme leaves a choice; else 0
  bool quantized = false;       ///< false: the values are copied or cast
  std::shared_ptr<const Encoding> factored = nullptr;  ///< set for LoRA factors

  /// Units in the tensor; 0 where it is empty.
  [[nodiscard]] uint64_t unit_count() const;
  /// Bytes of the source tensor (relative to its start) that the units need, in the order the kernel wants.
  [[nodiscard]] std::vector<ByteRange> source_ranges(UnitRange units) const;
  /// Bytes of stored tensor `index` (relative to its start) that the units make, in the kernel's order.
  [[nodiscard]] std::vector<ByteRange> stored_ranges(size_t index, UnitRange units) const;
  /// The unit that makes byte `offset` of stored tensor `index` (not a constant).
  [[nodiscard]] uint64_t unit_at(size_t index, uint64_t offset) const;
  /// Source bytes of one unit, all its pieces together.
  [[nodiscard]] uint64_t source_bytes_of_unit() const;
  /// Bytes that one unit makes of stored tensor `index`, at most.
  [[nodiscard]] uint64_t stored_bytes_of_unit(size_t index) const;

  /// Calls the kernel; the arguments are those of EncodeArgs. `survey` may be null where none is needed.
  void encode_units(std::span<const std::byte> source, std::span<const std::span<std::byte>> into,
                    const Survey* survey_found) const;
  /// Calls the decoder; the arguments are those of DecodeArgs. REQUIRES: quantized.
  void decode_units(std::span<const std::span<const std::byte>> from, const Survey* survey_found,
                    std::span<float> values) const;
};

}  // namespace qcache

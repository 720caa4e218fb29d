#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "core/model/tensor.h"

namespace qcache {

struct ModelFacts;

/// Fills the span from the bytes at this position of a model's file (TensorInfo::file).
using ReadFile = std::function<Status(uint32_t file, uint64_t position, std::span<std::byte> out)>;

/// How a checkpoint stores the values of a tensor.
///
/// Whoever reads a tensor gets its values as bytes, row-major and contiguous, in the tensor's dtype, whatever they are
/// stored as: so nothing but this knows that a source was quantized. Encodings are constants that live for the whole
/// process; their functions may be called from any thread. To add one, write `core/model/encodings/<name>.cpp` and its
/// line in encodings.h.
class SourceEncoding {
 public:
  SourceEncoding() = default;
  virtual ~SourceEncoding() = default;
  SourceEncoding(const SourceEncoding&) = delete;
  SourceEncoding& operator=(const SourceEncoding&) = delete;

  [[nodiscard]] virtual std::string_view name() const = 0;
  /// Raised whenever other values come of the same bytes; part of the identity.
  [[nodiscard]] virtual uint32_t version() const { return 1; }

  /// Replaces the tensors of a model that are stored so by those that they stand for: with the name, dtype and shape of
  /// the values, this `encoding`, and what is stored as `parts`. Leaves all others. kInvalidModel where the stored
  /// tensors contradict each other.
  [[nodiscard]] virtual Status recognize(const ModelFacts& facts, std::vector<TensorInfo>& tensors) const = 0;

  /// Fills `out` with the values' bytes from `offset` on. REQUIRES: both are whole elements inside the tensor, whose
  /// encoding this is. Fails as `read`; kInvalidModel where stored bytes mean nothing.
  [[nodiscard]] virtual Status read(const TensorInfo& tensor, uint64_t offset, std::span<std::byte> out,
                                    const ReadFile& read) const = 0;
};

/// All encodings, in the order in which they are asked to recognize.
[[nodiscard]] std::span<const SourceEncoding* const> all_source_encodings();

/// The encoding of a tensor.
[[nodiscard]] const SourceEncoding& encoding_of(const TensorInfo& tensor);

}  // namespace qcache

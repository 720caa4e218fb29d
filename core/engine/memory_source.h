#pragma once

#include <memory>
#include <span>
#include <vector>

#include "core/engine/source_reader.h"

namespace qcache {

/// A source model whose tensors lie in this program's memory: TensorInfo::file is an index into `memory`, and its range
/// and strides are relative to what is there. Never fails. The memory belongs to the caller, and neither moves nor
/// changes while this lives. Thread-safe.
class MemorySource final : public SourceReader {
 public:
  /// REQUIRES: all elements of every tensor lie inside its memory.
  MemorySource(Env& env, std::shared_ptr<const SourceModel> model, std::vector<std::span<const std::byte>> memory,
               Stats& stats);

  [[nodiscard]] Status check_file(size_t file) const override;

 private:
  [[nodiscard]] Status read_file(size_t file, uint64_t position, std::span<std::byte> out) const override;

  const std::vector<std::span<const std::byte>> memory_;
};

}  // namespace qcache

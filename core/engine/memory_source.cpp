#include "core/engine/memory_source.h"

#include <algorithm>
#include <utility>

namespace qcache {

MemorySource::MemorySource(Env& env, std::shared_ptr<const SourceModel> model,
                           std::vector<std::span<const std::byte>> memory, Stats& stats)
    : SourceReader(env, std::move(model), stats), memory_(std::move(memory)) {}

Status MemorySource::check_file(size_t /*file*/) const {
  return {};
}

Status MemorySource::read_file(size_t file, uint64_t position, std::span<std::byte> out) const {
  const std::span<const std::byte> from = memory_.at(file).subspan(position, out.size());
  std::ranges::copy(from, out.begin());
  return {};
}

}  // namespace qcache

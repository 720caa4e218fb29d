#include "core/engine/surveys.h"

#include <algorithm>

#include "core/base/contain_exceptions.h"
#include "core/base/page_buffer.h"

namespace qcache {

Result<Survey> Surveys::of(uint32_t group) {
  {
    const MutexLock lock(mutex_);
    while (entries_[group].being_made) {
      changed_.wait(mutex_);
    }
    if (const auto& found = entries_[group].found) {
      return *found;
    }
    entries_[group].being_made = true;
  }
  Result<Survey> made = contain_exceptions("cannot survey a tensor", [&] { return make(group); });
  const MutexLock lock(mutex_);
  Entry& entry = entries_[group];
  entry.being_made = false;
  if (made) {
    entry.found = *made;
  }
  changed_.notify_all();
  return made;
}

Result<Survey> Surveys::make(uint32_t group) const {
  constexpr uint64_t kReadBytes = uint64_t{512} << 10;
  const std::shared_ptr<const Group> planned = plan_.group(group);
  const Encoding& encoding = planned->encoding;
  const TensorInfo& tensor = plan_.source().tensors[planned->tensor];
  // Whole units at a time: what a scheme averages may not be cut.
  const uint64_t unit = encoding.source_bytes_per_unit;
  const uint64_t step = std::max<uint64_t>(1, kReadBytes / unit) * unit;
  PageBuffer buffer(std::min(step, encoding.source_bytes));
  Survey survey;
  for (uint64_t offset = 0; offset < encoding.source_bytes; offset += step) {
    const std::span<std::byte> bytes =
        std::span(buffer).first(std::min<uint64_t>(buffer.size(), encoding.source_bytes - offset));
    QCACHE_TRY(source_.read(tensor, offset, bytes));
    encoding.survey(encoding.source_dtype, bytes, survey);
  }
  QCACHE_TRY(source_.check(tensor));
  return survey;
}

}  // namespace qcache

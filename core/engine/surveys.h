#pragma once

#include <cstdint>
#include <optional>
#include <unordered_map>

#include "core/base/mutex.h"
#include "core/engine/source_reader.h"
#include "core/layout/layout_plan.h"

namespace qcache {

/// The surveys of one open file's source tensors (Encoding::survey), each made when it is first needed and then kept.
///
/// Thread-safe. Whoever needs a survey first reads the tensor, with no lock held; others that need the same one wait
/// for it. That cannot deadlock: who makes a survey waits for nobody. A failure is told to its maker and not kept, so
/// one of those who waited tries again. What is kept was read from the source in the state of its identity.
class Surveys {
 public:
  Surveys(const LayoutPlan& plan, const SourceReader& source) : plan_(plan), source_(source) {}

  /// REQUIRES: the group's encoding has a survey. Fails as SourceReader does.
  Result<Survey> of(uint32_t group) QCACHE_EXCLUDES(mutex_);

 private:
  struct Entry {
    bool being_made = false;
    std::optional<Survey> found;
  };
  [[nodiscard]] Result<Survey> make(uint32_t group) const;

  const LayoutPlan& plan_;
  const SourceReader& source_;

  Mutex mutex_;
  CondVar changed_;
  std::unordered_map<uint32_t, Entry> entries_ QCACHE_GUARDED_BY(mutex_);
};

}  // namespace qcache

#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/engine/engine.h"
#include "tools/mount_table.h"
#include "tools/progress_bar.h"

namespace qcache {

/// How far a file is that somebody makes whole.
struct WarmState {
  ArtifactState state = ArtifactState::kAbsent;
  double progress = 0;
  uint64_t size_bytes = 0;
  std::string error;  ///< where failed
};

/// A file that can be made whole in the background, wherever that is done. One thread.
class WarmTarget {
 public:
  virtual ~WarmTarget() = default;
  /// "<model>/<dtype>/<rank>.bin"
  [[nodiscard]] virtual const std::string& path() const = 0;
  /// Starts, or starts again after a pause; returns at once.
  virtual Status start() = 0;
  [[nodiscard]] virtual Result<WarmState> look() = 0;
  /// Ends the work; what is made stays.
  virtual void stop() = 0;
};

/// A file of a running mount: its daemon does the work. REQUIRES: `place` names a file.
[[nodiscard]] std::unique_ptr<WarmTarget> warm_target_in_mount(Env& env, const MountPath& place);
/// A file that `engine`, which must outlive it, makes in this process.
[[nodiscard]] std::unique_ptr<WarmTarget> warm_target_in_engine(Engine& engine, const ArtifactName& name);

struct WarmReport {
  uint64_t size_bytes = 0;
  bool was_complete = false;  ///< there was nothing to do
  double seconds = 0;
};

/// Makes the file whole and waits for that. kInterrupted where InterruptWatch saw a signal: the work is stopped then.
/// REQUIRES: an InterruptWatch.
Result<WarmReport> warm_and_wait(WarmTarget& target, ProgressBar& bar);

}  // namespace qcache

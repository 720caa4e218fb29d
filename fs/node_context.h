#pragma once

#include <string>
#include <vector>

#include "core/engine/engine.h"
#include "fs/control_files.h"
#include "fs/node_attributes.h"

namespace qcache {

/// What all nodes of one mount ask, and what of the sources others may see there. Outlives them. Thread-safe, as Engine
/// is.
class NodeContext {
 public:
  /// `shared`: other users than the owner see the mount, and may do with a node what they may do with its sources.
  NodeContext(Engine& engine, const ControlFiles& control, bool shared)
      : engine_(engine), control_(control), shared_(shared) {}

  [[nodiscard]] Engine& engine() const { return engine_; }
  [[nodiscard]] const ControlFiles& control() const { return control_; }

  /// Whether what others may do with a node depends on its sources, as they are when it is asked.
  [[nodiscard]] bool shared() const { return shared_; }

  /// Of one file of a model.
  [[nodiscard]] NodeAccess access_of(const SourceSpot& spot) const;
  /// Of the files whose bytes the weights are made of.
  [[nodiscard]] NodeAccess access_of_weights(const SourceModel& model) const;
  /// Of all files that a model was read from: what qcache writes tells of them.
  [[nodiscard]] Result<NodeAccess> access_of_model(std::string_view model) const;
  /// Of the folder of a model, or of the one below it that `relative` names, if it is not one that qcache adds.
  [[nodiscard]] NodeAccess access_of_folder(std::string_view model, std::string_view relative = {}) const;

 private:
  Engine& engine_;
  const ControlFiles& control_;
  const bool shared_;
};

}  // namespace qcache

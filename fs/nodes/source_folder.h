#pragma once

#include <string>

#include "fs/node.h"

namespace qcache {

/// A folder that stands for one of a model's: others may do in it what they may do there. Folders of dtypes stand for
/// the model's own, those below `<model>/<dtype>/<rank>/` for the source's of the same path, or, where qcache adds
/// them, for the model's own, too.
class SourceFolderNode : public FolderNode {
 public:
  [[nodiscard]] bool attributes_ask_files() const final { return context().shared(); }

 protected:
  using FolderNode::FolderNode;

  [[nodiscard]] std::string model_name() const { return std::string(model()); }
  [[nodiscard]] NodeAccess access() const final { return context().access_of_folder(model(), path_after(3)); }
};

}  // namespace qcache

#pragma once

#include "fs/nodes/source_folder.h"

namespace qcache {

/// `<model>/`: a folder per dtype that the model can be served in. One that cannot be served is an empty folder, which
/// can be removed all the same.
class ModelNode final : public SourceFolderNode {
 public:
  ModelNode(const NodeContext& context, std::string_view path) : SourceFolderNode(context, path) {}

  [[nodiscard]] Result<std::vector<FolderEntry>> list() const override;
  [[nodiscard]] Result<Xattrs> xattrs() const override;
  [[nodiscard]] Status remove() const override;

 private:
  [[nodiscard]] Result<FoundNode> find(const std::string& name) const override;
};

}  // namespace qcache

#pragma once

#include "fs/nodes/source_folder.h"

namespace qcache {

/// `<model>/<dtype>/`: 0.bin, and the folder 0; those of other ranks while they hold bytes. Files of every rank are
/// there for who names them.
class DtypeNode final : public SourceFolderNode {
 public:
  DtypeNode(const NodeContext& context, std::string_view path, const Scheme& scheme)
      : SourceFolderNode(context, path), scheme_(scheme) {}

  [[nodiscard]] Result<std::vector<FolderEntry>> list() const override;
  [[nodiscard]] Status remove() const override;

 private:
  [[nodiscard]] Result<FoundNode> find(const std::string& name) const override;

  const Scheme& scheme_;
};

}  // namespace qcache

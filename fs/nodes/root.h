#pragma once

#include "fs/node.h"

namespace qcache {

/// The mount itself: a folder per model, and `.qcache`.
class RootNode final : public FolderNode {
 public:
  explicit RootNode(const NodeContext& context) : FolderNode(context, "") {}

  /// Listing it asks all model folders, and so is counted for itself.
  [[nodiscard]] std::string_view model() const override { return "/"; }
  [[nodiscard]] std::string_view model_of(std::string_view name) const override;
  [[nodiscard]] Result<std::vector<FolderEntry>> list() const override;

 private:
  [[nodiscard]] Result<FoundNode> find(const std::string& name) const override;
};

}  // namespace qcache

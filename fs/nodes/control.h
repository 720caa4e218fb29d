#pragma once

#include "fs/node.h"

namespace qcache {

/// `.qcache`: the texts of ControlFiles. They ask nothing of any model, so that they can be read whatever has stopped.
class ControlFolderNode final : public FolderNode {
 public:
  ControlFolderNode(const NodeContext& context, std::string_view path) : FolderNode(context, path) {}

  [[nodiscard]] std::string_view model() const override { return {}; }
  [[nodiscard]] Result<std::vector<FolderEntry>> list() const override;

 private:
  [[nodiscard]] Result<FoundNode> find(const std::string& name) const override;
};

/// One of them, written anew for every open and stat.
class ControlFileNode final : public FileNode {
 public:
  ControlFileNode(const NodeContext& context, std::string_view path, const ControlFiles::File& file)
      : FileNode(context, path), file_(file) {}

  [[nodiscard]] std::string_view model() const override { return {}; }
  [[nodiscard]] NodeAttributes attributes() const override;
  [[nodiscard]] Result<OpenFile> open(int64_t& settles_in_ns) const override;

 private:
  [[nodiscard]] std::string text() const { return context().control().text_of(file_); }

  const ControlFiles::File& file_;
};

}  // namespace qcache

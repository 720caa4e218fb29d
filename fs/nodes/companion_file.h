#pragma once

#include "fs/node.h"

namespace qcache {

/// A file of the model's own in a folder `<model>/<dtype>/<rank>/`, passed through. Another state of the file is
/// another node, so that no page of the old one is served for the new, and no node is opened with two backing files; so
/// is another access, as the kernel asks for a node's mode before it opens it.
class CompanionFileNode final : public FileNode {
 public:
  /// `place` is where it lies now.
  CompanionFileNode(const NodeContext& context, std::string_view path, const SourcePlace& place);

  /// As it was found: names are looked up anew for every open and stat.
  [[nodiscard]] NodeAttributes attributes() const override { return file_attributes(path(), facts_); }
  [[nodiscard]] Result<OpenFile> open(int64_t& settles_in_ns) const override;
  /// It holds nothing in the cache; refusing would make rm -r of a folder fail.
  [[nodiscard]] Status remove() const override { return {}; }

 private:
  CompanionFileNode(const NodeContext& context, std::string_view path, const FileStat& stat, const NodeAccess& access);

  const FileFacts facts_;
};

}  // namespace qcache

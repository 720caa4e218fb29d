#pragma once

#include "fs/node.h"

namespace qcache {

/// A small file that qcache writes into a folder `<model>/<dtype>/<rank>/`. Another text is another node, so that the
/// kernel keeps no page of one for the other: the name leads to another one when weights are sealed or dropped, or the
/// model changes. So is another access, as the kernel asks for a node's mode before it opens it.
class GeneratedFileNode final : public FileNode {
 public:
  /// `path` is that of `file`, one of the folder's.
  [[nodiscard]] static Result<FoundNode> find(const NodeContext& context, std::string_view path, const Scheme& scheme,
                                              uint32_t rank, const FolderFile& file);
  /// For find().
  GeneratedFileNode(const NodeContext& context, std::string_view path, std::string_view state, const FileFacts& facts,
                    const Scheme& scheme, uint32_t rank, bool foretells_load)
      : FileNode(context, path, state), facts_(facts), scheme_(scheme), rank_(rank), foretells_load_(foretells_load) {}

  /// As it was found: names are looked up anew for every open and stat.
  [[nodiscard]] NodeAttributes attributes() const override { return file_attributes(path(), facts_); }
  [[nodiscard]] Result<OpenFile> open(int64_t& settles_in_ns) const override;
  [[nodiscard]] std::optional<ArtifactName> foretold_load() const override;
  /// It holds nothing in the cache; refusing would make rm -r of a folder fail.
  [[nodiscard]] Status remove() const override { return {}; }

 private:
  const FileFacts facts_;
  const Scheme& scheme_;
  const uint32_t rank_;
  const bool foretells_load_;
};

/// The file of that path below `<rank>/`; null where qcache writes none.
[[nodiscard]] const FolderFile* find_file(const ModelFolder& folder, std::string_view relative);

}  // namespace qcache

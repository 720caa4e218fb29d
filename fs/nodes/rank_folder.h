#pragma once

#include "fs/nodes/source_folder.h"

namespace qcache {

/// `<model>/<dtype>/<rank>/`, which frameworks load, or a folder in it: cached files of the rank, small files that
/// qcache writes, and the files and folders of the model. What qcache adds hides what the model has under its name.
class RankFolderNode final : public SourceFolderNode {
 public:
  RankFolderNode(const NodeContext& context, std::string_view path, const Scheme& scheme, uint32_t rank)
      : SourceFolderNode(context, path), scheme_(scheme), rank_(rank) {}

  [[nodiscard]] Result<std::vector<FolderEntry>> list() const override;
  [[nodiscard]] std::optional<ArtifactName> foretold_load(std::string_view name) const override;
  /// Drops the cached files of this rank below it, not what it shares with rank 0, and leaves the model alone.
  [[nodiscard]] Status remove() const override;

 private:
  /// A cached file that stands in the folder `<rank>/`.
  struct CachedFile {
    ArtifactName name;
    std::string path;  ///< below `<rank>/`
  };
  [[nodiscard]] Result<FoundNode> find(const std::string& name) const override;
  /// What qcache adds to `<rank>/`.
  [[nodiscard]] Result<std::shared_ptr<const ModelFolder>> planned() const;
  [[nodiscard]] std::vector<CachedFile> cached_files(const std::string& component) const;
  [[nodiscard]] bool is_borrowed(const CachedFile& file) const { return file.name.rank != rank_; }
  /// The path below `<rank>/`, empty for that itself.
  [[nodiscard]] std::string_view relative() const { return path_after(3); }

  const Scheme& scheme_;
  const uint32_t rank_;
};

}  // namespace qcache

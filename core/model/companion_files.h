#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/mount_info.h"
#include "core/base/result.h"
#include "core/model/source_folders.h"

namespace qcache {

/// A file or folder of a model that is not its weights: tokenizers, generation settings, code, sub-folders.
struct CompanionEntry {
  std::string name;
  bool directory = false;
};

/// The companions of one model, as they are now: nothing is remembered. `relative` is a path below the model's folder,
/// empty for the folder itself; what is not made of plain names is kNotFound.
///
/// In the folder of the weights, what holds weights in any framework's format is left out, and hidden names are left
/// out at the top: a copy of the folder shall hold the model once. Links to files are followed as SourceFolders does: a
/// model's author must not be able to show other files of this machine. Links to folders are left out, as they can make
/// a tree without end. Thread-safe.
class CompanionFiles {
 public:
  /// `folders` are those of the model (SourceFolders::of_model()); `model_path` is absolute, links resolved. Mounts of
  /// qcache among `mounts` (null: none) are left out: they would show the folder in itself, without end.
  CompanionFiles(SourceFolders folders, std::string model_path, std::string weights_folder,
                 std::shared_ptr<const MountTable> mounts = nullptr);

  [[nodiscard]] const SourceFolders& folders() const { return folders_; }

  /// Sorted by name. Links that lead out, or nowhere, are left out.
  [[nodiscard]] Result<std::vector<CompanionEntry>> list(const std::string& relative) const;

  /// What lies there, following links. kNotFound where nothing does, or it is left out.
  [[nodiscard]] Result<SourcePlace> look(const std::string& relative) const;

  /// Opens a file. kNotFound as for look(), kSourceChanged where it was replaced meanwhile.
  [[nodiscard]] Result<SourceFile> open(const std::string& relative) const;

 private:
  [[nodiscard]] bool is_left_out(const std::string& relative) const;
  [[nodiscard]] bool is_qcache(const std::string& path) const;
  [[nodiscard]] bool is_qcache(const SourcePlace& place) const;
  [[nodiscard]] Result<SourcePlace> look_at_folder(const std::string& relative) const;
  [[nodiscard]] Result<SourcePlace> look_in(const SourcePlace& folder, const std::string& name,
                                            const std::string& relative) const;

  const SourceFolders folders_;
  const std::string model_path_;
  const std::string weights_folder_;  // relative, empty for the model's folder itself
  const std::shared_ptr<const MountTable> mounts_;
};

}  // namespace qcache

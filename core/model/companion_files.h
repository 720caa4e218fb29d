#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/env.h"
#include "core/base/result.h"
#include "core/model/source_file.h"
#include "core/model/source_model.h"

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
/// out at the top: a copy of the folder shall hold the model once. Links to files are followed as long as those lie in
/// the model's folder, its hub cache repo, or else one of `roots`: a model's author must not be able to
/// show other files of this machine. Links to folders are left out, as they can make a tree without end. Thread-safe.
class CompanionFiles {
 public:
  CompanionFiles(Env& env, std::string model_path, std::string weights_folder, std::vector<std::string> roots);

  /// Sorted by name. Links that lead out, or nowhere, are left out.
  [[nodiscard]] Result<std::vector<CompanionEntry>> list(const std::string& relative) const;

  /// What lies there, following links. kNotFound where nothing does, or it is left out.
  [[nodiscard]] Result<FileStat> stat(const std::string& relative) const;

  /// Opens a file. kNotFound as for stat(), kSourceChanged where it was replaced meanwhile.
  [[nodiscard]] Result<SourceFile> open(const std::string& relative) const;

 private:
  [[nodiscard]] bool is_left_out(const std::string& relative) const;
  [[nodiscard]] bool may_lead_to(const std::string& real) const;
  /// The path with links resolved, where it may be followed.
  [[nodiscard]] Result<std::string> resolve(const std::string& relative) const;

  Env& env_;
  const std::string model_path_;
  const std::string weights_folder_;  // relative, empty for the model's folder itself
  const std::vector<std::string> roots_;
};

}  // namespace qcache

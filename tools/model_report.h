#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base/env.h"
#include "core/engine/artifact_name.h"
#include "core/model/source_model.h"
#include "core/quant/scheme.h"
#include "core/store/store.h"
#include "tools/cache_entries.h"
#include "tools/mount_table.h"

namespace qcache {

/// How far a file of a model is.
struct FileState {
  std::string
      state;  ///< "absent", "filling", "complete", "sealed", "failed"; "stale" where the model has changed since
  double progress = 0;
  std::string error;  ///< where failed
};

/// A file of a model in one dtype.
struct FileReport {
  std::string file;  ///< as shown below the dtype: "0.bin", "0/model.safetensors"
  uint64_t size_bytes = 0;
  FileState state;
};

/// A model in one dtype. Either `refusal` is set, or `files` are: the weights of the folder `0/` and `0.bin`, as far as
/// the model has them, and the files of other ranks that hold bytes.
struct DtypeReport {
  std::string dtype;
  uint64_t largest_rank = 0;  ///< that there are files of
  std::vector<FileReport> files;
  std::string refusal;
};

/// What `qcache info MODEL` tells.
struct ModelReport {
  std::shared_ptr<const SourceModel> model;
  std::vector<DtypeReport> dtypes;

  /// Whether there is a dtype that it can be served in.
  [[nodiscard]] bool servable() const;
};

/// Finds out how far the files of a model are.
class FileStates {
 public:
  virtual ~FileStates() = default;
  [[nodiscard]] virtual FileState of(const SourceModel& model, const ArtifactName& name) const = 0;
  /// The files of ranks above 0 that hold bytes.
  [[nodiscard]] virtual std::vector<FileReport> ranks(const SourceModel& model, const Scheme& scheme) const = 0;
};

/// Asks a running mount.
[[nodiscard]] std::unique_ptr<FileStates> states_in_mount(Env& env, const MountPath& model);
/// Looks into a cache directory.
[[nodiscard]] std::unique_ptr<FileStates> states_in_cache(std::vector<CacheEntry> entries);
[[nodiscard]] std::unique_ptr<FileStates> states_unknown();

/// The largest rank that a model has files of in a scheme.
[[nodiscard]] uint64_t largest_rank_of(const SourceModel& model, const Scheme& scheme);

/// Reads the headers of the model in folder `path`, shown as `name`. Fails as read_source_model does.
Result<ModelReport> report_model(Env& env, const SourceFolders& folders, const std::string& path,
                                 const std::string& name, const FileStates& states);

/// For people; no line is wider than 80 columns unless a word is.
[[nodiscard]] std::string text_of(const ModelReport& report);
[[nodiscard]] Json to_json(const ModelReport& report);

}  // namespace qcache

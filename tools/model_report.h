#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/base/env.h"
#include "core/model/source_model.h"
#include "core/quant/scheme.h"
#include "core/store/store.h"
#include "tools/cache_entries.h"
#include "tools/mount_table.h"

namespace qcache {

/// How far the cached file of one dtype is.
struct FileProgress {
  std::string state;  ///< "absent", "filling", "sealed", "failed"; "stale" where the model has changed since
  double progress = 0;
  std::string error;  ///< where failed
};

/// A model in one dtype. Either `refusal` is set, or `size_bytes` and `progress` are.
struct DtypeReport {
  std::string dtype;
  std::optional<uint64_t> size_bytes;  ///< exact
  uint64_t largest_rank = 0;           ///< that there are files of
  FileProgress progress;
  std::string refusal;
};

/// What `qcache info MODEL` tells.
struct ModelReport {
  std::shared_ptr<const SourceModel> model;
  std::vector<DtypeReport> dtypes;

  /// Whether there is a dtype that it can be served in.
  [[nodiscard]] bool servable() const;
};

/// Finds out how far the file of a dtype is.
using ProgressLookup = std::function<FileProgress(const SourceModel&, const Scheme&)>;

/// Asks a running mount.
[[nodiscard]] ProgressLookup progress_in_mount(const MountPath& model);
/// Looks into a cache directory.
[[nodiscard]] ProgressLookup progress_in_cache(const std::vector<CacheEntry>& entries);
[[nodiscard]] ProgressLookup progress_unknown();

/// Reads the headers of the model in folder `path`, shown as `name`. Fails as read_source_model does.
Result<ModelReport> report_model(Env& env, const SourceFolders& folders, const std::string& path,
                                 const std::string& name, const ProgressLookup& lookup);

[[nodiscard]] std::string text_of(const ModelReport& report);
[[nodiscard]] Json to_json(const ModelReport& report);

}  // namespace qcache

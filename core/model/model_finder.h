#pragma once

#include <string>
#include <vector>

#include "core/base/env.h"
#include "core/base/result.h"

namespace qcache {

/// A folder that holds weights, and the name the mount shows it under.
struct FoundModel {
  std::string name;
  std::string path;  ///< absolute; for a hub cache, the current snapshot's folder
};

/// Finds the models below the given roots by listing directories; opens no file but `refs/main` of hub
/// caches and, where all that looks like weights in a folder are names such as `x.bin` that other files have too, those
/// files, to see how they begin.
///
/// - A root that itself holds weights is a model, named after the folder. With a config.json it is the only one;
///   without, the folders in it are looked into all the same, so that a stray weights file hides nothing.
/// - A folder with weights is a model, named after the folder; its subfolders are not looked into.
/// - `models--org--name` (a Hugging Face hub cache entry) is shown as `org--name`, at the snapshot that
///   `refs/main` names, else the most recently changed snapshot. At any depth; `datasets--` and `spaces--`
///   entries are no models. A root inside a snapshot is named after its repo too.
/// - A diffusers pipeline (model_index.json, and weights in transformer/ or unet/) is one model, named after its
/// folder.
/// - A folder without weights is looked into, two levels deep; a model inside is named `outer--inner`, the parts
///   of a pipeline in a hub cache `org--name--transformer`.
/// - Names starting with "." are skipped. Of two models with one name the first root's (then the first by
///   path, folder by folder) is shown; the other is returned in `shadowed`.
/// A folder that cannot be listed, and a name that is not UTF-8 or longer than 255 bytes, is reported in
/// `problems` and does not hide the others.
struct FoundModels {
  std::vector<FoundModel> models;  ///< sorted by name, names unique
  std::vector<FoundModel> shadowed;
  std::vector<std::string> problems;  ///< one sentence each
};
FoundModels find_models(Env& env, const std::vector<std::string>& roots);

/// The one model called `name`, the same that find_models shows; lists folders only until it is found.
Result<FoundModel> find_model(Env& env, const std::vector<std::string>& roots, const std::string& name);

}  // namespace qcache

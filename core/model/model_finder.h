#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/base/env.h"
#include "core/base/mount_info.h"
#include "core/base/result.h"
#include "core/model/source_folders.h"

namespace qcache {

/// A folder that holds weights, and the name the mount shows it under.
struct FoundModel {
  std::string name;
  std::string path;  ///< absolute; for a hub cache, the current snapshot's folder
};

/// Finds the models below the given roots by listing directories; opens no file of a model but `refs/main` of hub
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
/// - Names starting with "." are skipped, and so are mounts of qcache, which would show every model once more, and
///   cache directories of qcache.
/// - A link is followed as long as it leads below the roots; one to a folder elsewhere is reported in `problems`.
/// - Of two models with one name the first root's is shown; of one root, the one whose path says its name before one of
///   a hub cache deeper down; then the first by path, folder by folder. The other is returned in `shadowed`.
/// A folder that cannot be listed, and a name that is not UTF-8 or longer than 255 bytes, is reported in
/// `problems` and does not hide the others.
struct FoundModels {
  std::vector<FoundModel> models;  ///< sorted by name, names unique
  std::vector<FoundModel> shadowed;
  std::vector<std::string> problems;  ///< one sentence each
};
FoundModels find_models(Env& env, const std::vector<std::string>& roots);

/// The one model called `name`, the same that find_models shows. Folders that the name does not lead to are looked into
/// only where it leads to none that is there.
Result<FoundModel> find_model(Env& env, const std::vector<std::string>& roots, const std::string& name);

/// Whether a walk through `root` would come to `path`. Both absolute, links resolved.
[[nodiscard]] bool would_be_walked(std::string_view root, std::string_view path);

/// What one walk through one root saw, and what makes the next walk and the lookups after it cheap: of each folder what
/// it is, as long as its stat stays the same. Immutable after it is made, so it may be shared between threads.
struct RootWalk {
  /// A folder as it was listed. Kept only where its times lie so far back that every later change shows in them.
  struct Folder {
    uint64_t device = 0;
    uint64_t inode = 0;
    int64_t mtime_ns = 0;
    int64_t ctime_ns = 0;
    bool model = false;
    std::vector<std::string> names;  ///< sorted; of a model in a root only the root's are kept
    [[nodiscard]] bool matches(const FileStat& now) const;
  };
  struct HubRepo {
    std::string path;
    std::string name;
  };

  std::string root;                ///< links resolved
  std::vector<FoundModel> models;  ///< in the order of preference, names perhaps twice
  std::vector<std::string> problems;
  std::unordered_map<std::string, std::string> paths;                      ///< of each name, the preferred
  std::unordered_map<std::string, std::shared_ptr<const Folder>> folders;  ///< by path
  std::vector<std::string> looked_into;  ///< every folder whose children may be models
  std::vector<HubRepo> hub_repos;        ///< in other folders than the root, so that no name leads to them; in order
};

/// Walks one root; `folders` are those that may be read. Folders that are as they were in `before` (which may be null)
/// are not listed again. `steps` is counted up as the walk moves, for those who watch whether it still does.
std::shared_ptr<const RootWalk> walk_root(Env& env, const SourceFolders& folders, const std::string& root,
                                          const MountTable& mounts, const RootWalk* before,
                                          std::atomic<uint64_t>& steps);

/// What is known of one name in one root, from the folders that the name leads to and from what is remembered.
struct RootLookup {
  std::optional<FoundModel> found;
  /// Whether nothing is really there: else something has changed since the walk, or there was none, and only another
  /// one could tell.
  bool sure = true;
  std::vector<std::string> problems;
};
/// Never walks. `last` may be null.
RootLookup look_up_in_root(Env& env, const SourceFolders& folders, const std::string& root, const MountTable& mounts,
                           const std::string& name, const RootWalk* last);

/// The same, joined over several roots, whose walks are given in their order.
FoundModels join_walks(const std::vector<std::shared_ptr<const RootWalk>>& walks);

}  // namespace qcache

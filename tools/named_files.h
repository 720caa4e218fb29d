#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/engine/artifact_name.h"
#include "core/store/store.h"
#include "tools/mount_table.h"

namespace qcache {

/// Cached files by what they were made from. Parts that are not set, or empty, match everything.
struct FilePattern {
  std::optional<std::string> model;       ///< its name in a mount, as it was when the file was made
  std::vector<std::string> shown;         ///< or one of these folders: what mounts show by that name now
  std::optional<std::string> model_path;  ///< its folder, links resolved
  std::optional<std::string> dtype;       ///< canonical name
  std::optional<uint32_t> rank;
  std::vector<const Container*> containers;
  std::optional<std::string> file;  ///< name in the cache directory

  [[nodiscard]] bool matches(const CacheEntry& entry) const;
};

/// A file of a cache directory, named by its path.
struct CachedFilePath {
  std::string cache_directory;
  std::string file;
};

/// A model by its folder on disk.
struct FolderPath {
  std::string root;  ///< the folder that was named, links resolved
  std::string path;  ///< the model in it; for a hub cache entry, its current snapshot
  std::string name;  ///< what a mount of the folder would call it; empty where it holds no weights
};

/// The one model in `folder`, be it the folder itself or below it. kInvalidArgument where there are several, and for a
/// folder that is no place for models, such as "/", before it is looked through.
Result<FolderPath> look_into_folder(Env& env, const std::string& folder);

/// A model by its name in a mount. Whether there is one is not known yet.
struct ModelName {
  std::string name;
};

/// What the words of a command line name, as [MODEL [DTYPE [FILE]]] or PATH.
struct NamedFiles {
  std::variant<ModelName, MountPath, CachedFilePath, FolderPath> what;
  std::optional<std::string> dtype;      ///< canonical where it is a dtype of ours; part of a MountPath's names instead
  std::string file;                      ///< as shown below the dtype: "16.bin", "0/model.safetensors"; likewise
  std::optional<uint32_t> rank;          ///< of `file`; likewise
  const Container* container = nullptr;  ///< of `file`, where it tells a `.bin` from a folder's weights; likewise
  bool rank_alone = false;               ///< the last word was a mere rank, which is all files of that rank
  std::string text;                      ///< the words, for messages
  /// The folders (links resolved) that running mounts show by the model's name, where the words have one. What was made
  /// under another name, by another mount or before one, is theirs all the same.
  std::vector<std::string> shown;

  /// For looking through a cache directory.
  [[nodiscard]] FilePattern pattern() const;
  /// The cache directory that the words themselves imply; empty for most.
  [[nodiscard]] std::string cache_directory() const;
};

/// Words as given; those after `model` may be empty.
struct NameWords {
  std::string model;
  std::string dtype;
  std::string file;
};

/// Finds out what the words name:
/// - a path in a running mount, as shown or not;
/// - a cached file, `quantized_model_<md5>.bin`;
/// - a folder on disk, if the word has a "/" in it;
/// - else names as they are in a mount: `Qwen int8 0`, `Qwen/int8/0.bin`, `Qwen/int8/0/model.safetensors`,
///   `Qwen/int8/16/lora/adapter_model.safetensors`; and a model by its id in the hub, `org/name`, which mounts show as
///   `org--name`.
/// kNotFound for a path that leads nowhere, kInvalidArgument for a malformed file or rank; fails as
/// refuse_unusable_mount().
Result<NamedFiles> resolve_names(Env& env, const NameWords& words, const Mounts& mounts);

/// The same for what is cached: the folder of a model need not be there any more.
Result<NamedFiles> resolve_cached_names(Env& env, const NameWords& words, const Mounts& mounts);

/// Whether it is the weights in the folder of a rank above 0, which are those of rank 0.
[[nodiscard]] bool shows_weights_of_another_rank(const MountPath& file);

/// The files that are meant where `place` names a dtype (the weights of its folder, else its checkpoint) or a rank's
/// folder (its weights, then its adapter), and for a pipeline's weights by the name that others have; other places as
/// they are. Never empty.
[[nodiscard]] std::vector<MountPath> files_meant(Env& env, MountPath place);

/// Of the places where mounts show one model, called `text`, the one that is meant: in a mount of this user's before
/// those of others. None of none; kInvalidArgument where their mounts have different cache directories.
Result<std::optional<MountPath>> the_one_meant(std::vector<MountPath> places, const std::string& text);

/// Where a running mount shows what `names` names; none where no mount has a model called so. `cache_directory`: only
/// mounts that use it count, all where it is empty. Fails as the_one_meant().
Result<std::optional<MountPath>> find_in_mounts(Env& env, const NamedFiles& names,
                                                const std::vector<RunningMount>& mounts,
                                                const std::string& cache_directory);

}  // namespace qcache

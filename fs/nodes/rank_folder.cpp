#include "fs/nodes/rank_folder.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "core/layout/containers.h"
#include "fs/nodes/artifact_file.h"
#include "fs/nodes/companion_file.h"
#include "fs/nodes/generated_file.h"

namespace qcache {
namespace {

// transformers, where peft is installed, first asks whether the folder is an adapter's, then sets up the model (half a
// second and more, on one core), then opens the weights. Whoever only looks around asks for no file that is not listed.
constexpr std::string_view kNameSoughtByLoaders = "adapter_config.json";

/// The folder that a path lies in, "" where that is `<rank>/` itself.
std::string_view folder_of(std::string_view relative) {
  const size_t slash = relative.rfind('/');
  return slash == std::string_view::npos ? std::string_view() : relative.substr(0, slash);
}

std::string_view name_in_folder(std::string_view relative) {
  return relative.substr(relative.rfind('/') + 1);
}

/// Whether the folder holds nothing of the source's.
bool is_own_folder(const ModelFolder& folder, std::string_view relative) {
  return std::ranges::find(folder.own_folders, relative) != folder.own_folders.end();
}

}  // namespace

Result<std::shared_ptr<const ModelFolder>> RankFolderNode::planned() const {
  return engine().folder(model_name(), scheme_, rank_);
}

std::vector<RankFolderNode::CachedFile> RankFolderNode::cached_files(const std::string& component) const {
  std::vector<CachedFile> out;
  for (const Container* const container : all_containers()) {
    if (container->stands_in_folder() && container->has_rank(rank_)) {
      const std::string path = container->path_of(rank_, component);
      out.push_back({ArtifactName{model_name(), &scheme_, container->rank_behind(rank_), container},
                     path.substr(path.find('/') + 1)});
    }
  }
  return out;
}

Result<FoundNode> RankFolderNode::find(const std::string& name) const {
  QCACHE_TRY_ASSIGN(const std::shared_ptr<const ModelFolder> folder, planned());
  const std::string below = relative().empty() ? name : fmt::format("{}/{}", relative(), name);
  for (const CachedFile& file : cached_files(folder->component)) {
    if (file.path == below) {
      return ArtifactFileNode::find(context(), file.name, is_borrowed(file));
    }
  }
  if (const FolderFile* const file = find_file(*folder, below)) {
    return GeneratedFileNode::find(context(), path_of(name), scheme_, rank_, *file);
  }
  if (is_own_folder(*folder, relative())) {
    return no_such("file", name);
  }
  if (is_own_folder(*folder, below)) {
    return found_node<RankFolderNode>(context(), path_of(name), scheme_, rank_);
  }
  QCACHE_TRY_ASSIGN(const CompanionFiles companions, engine().companions(model_name()));
  QCACHE_TRY_ASSIGN(const SourcePlace place, companions.look(below));
  if (place.stat.is_directory()) {
    return found_node<RankFolderNode>(context(), path_of(name), scheme_, rank_);
  }
  return found_node<CompanionFileNode>(context(), path_of(name), place);
}

Result<std::vector<FolderEntry>> RankFolderNode::list() const {
  QCACHE_TRY_ASSIGN(const std::shared_ptr<const ModelFolder> folder, planned());
  std::map<std::string, bool> names;  // sorted; what qcache adds hides what the source has
  if (!is_own_folder(*folder, relative())) {
    QCACHE_TRY_ASSIGN(const CompanionFiles companions, engine().companions(model_name()));
    QCACHE_TRY_ASSIGN(const std::vector<CompanionEntry> passed, companions.list(std::string(relative())));
    for (const CompanionEntry& companion : passed) {
      names[companion.name] = companion.directory;
    }
  }
  const auto add_below = [&](std::string_view path, bool is_folder) {
    if (folder_of(path) == relative()) {
      names[std::string(name_in_folder(path))] = is_folder;
    }
  };
  for (const CachedFile& file : cached_files(folder->component)) {
    add_below(file.path, false);
  }
  for (const FolderFile& file : folder->files) {
    add_below(file.name, false);
  }
  for (const std::string& path : folder->own_folders) {
    add_below(path, true);
  }
  std::vector<FolderEntry> entries;
  entries.reserve(names.size());
  for (const auto& [name, is_folder] : names) {
    entries.push_back(entry(name, is_folder));
  }
  return entries;
}

std::optional<ArtifactName> RankFolderNode::foretold_load(std::string_view name) const {
  if (!relative().empty() || name != kNameSoughtByLoaders) {
    return std::nullopt;
  }
  return weights_of_folder(model_name(), scheme_, rank_);
}

Status RankFolderNode::remove() const {
  QCACHE_TRY_ASSIGN(const std::shared_ptr<const ModelFolder> folder, planned());
  for (const CachedFile& file : cached_files(folder->component)) {
    const bool below = relative().empty() || file.path.starts_with(fmt::format("{}/", relative()));
    if (below && !is_borrowed(file)) {
      QCACHE_TRY(engine().remove(file.name));
    }
  }
  return {};
}

}  // namespace qcache

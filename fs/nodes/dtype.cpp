#include "fs/nodes/dtype.h"

#include <map>
#include <set>

#include "fs/nodes/artifact_file.h"
#include "fs/nodes/rank_folder.h"

namespace qcache {
namespace {

/// What a path below `<model>/<dtype>/` begins with.
std::string first_name(const std::string& path) {
  return path.substr(0, path.find('/'));
}

}  // namespace

Result<FoundNode> DtypeNode::find(const std::string& name) const {
  if (const auto file = parse_container_path(name)) {
    return ArtifactFileNode::find(context(), {model_name(), &scheme_, file->rank, file->container});
  }
  if (const auto rank = parse_rank(name)) {
    QCACHE_TRY(engine().folder(model_name(), scheme_, *rank));
    return found_node<RankFolderNode>(context(), path_of(name), scheme_, *rank);
  }
  return no_such("file", name);
}

Result<std::vector<FolderEntry>> DtypeNode::list() const {
  const std::string model = model_name();
  QCACHE_TRY_ASSIGN(const std::shared_ptr<const SourceModel> source, engine().model(model));
  const bool has_folder = engine().folder(model, scheme_, 0).has_value();
  std::map<uint32_t, std::set<std::string>> names;  // by rank
  for (const Container* const container : all_containers()) {
    if (container->is_offered(0, has_folder, *source, scheme_)) {
      names[0].insert(first_name(container->path_of(0, "")));
    }
  }
  for (const ArtifactName& file : engine().cached_ranks(model, scheme_)) {
    names[file.rank].insert(first_name(file.file()));
  }
  std::vector<FolderEntry> entries;
  for (const auto& [rank, of_rank] : names) {
    for (const std::string& name : of_rank) {
      entries.push_back(entry(name, parse_rank(name).has_value()));
    }
  }
  return entries;
}

Status DtypeNode::remove() const {
  return engine().remove_all(model_name(), &scheme_);
}

}  // namespace qcache

#include "fs/node_context.h"

#include <fmt/format.h>

namespace qcache {

NodeAccess NodeContext::access_of(const SourceSpot& spot) const {
  return shared_ ? NodeAccess(engine_.folders().access({spot})) : std::nullopt;
}

NodeAccess NodeContext::access_of_weights(const SourceModel& model) const {
  if (!shared_) {
    return std::nullopt;
  }
  const auto files = static_cast<ptrdiff_t>(model.files.size());
  return engine_.folders().access({model.spots.begin(), model.spots.begin() + files});
}

Result<NodeAccess> NodeContext::access_of_model(std::string_view model) const {
  if (!shared_) {
    return NodeAccess();
  }
  QCACHE_TRY_ASSIGN(const std::shared_ptr<const SourceModel> source, engine_.model(std::string(model)));
  return NodeAccess(engine_.folders().access(source->spots));
}

NodeAccess NodeContext::access_of_folder(std::string_view model, std::string_view relative) const {
  if (!shared_) {
    return std::nullopt;
  }
  const SourceFolders& folders = engine_.folders();
  const auto found = engine_.locate_model(std::string(model));
  if (!found) {
    return SharedAccess{};
  }
  auto place = folders.look(relative.empty() ? found->path : fmt::format("{}/{}", found->path, relative));
  if (!place && !relative.empty()) {
    place = folders.look(found->path);  // a folder that qcache adds
  }
  return place ? folders.access({SourceSpot{place->real, place->stat.mode, place->stat.gid}}) : SharedAccess{};
}

}  // namespace qcache

#include "fs/nodes/root.h"

#include "fs/nodes/control.h"
#include "fs/nodes/model.h"

namespace qcache {
namespace {

constexpr std::string_view kControlName = ".qcache";

}  // namespace

std::string_view RootNode::model_of(std::string_view name) const {
  return name == kControlName ? std::string_view() : name;
}

Result<FoundNode> RootNode::find(const std::string& name) const {
  if (name == kControlName) {
    return found_node<ControlFolderNode>(context(), name);
  }
  QCACHE_TRY(engine().locate_model(name));
  return found_node<ModelNode>(context(), name);
}

Result<std::vector<FolderEntry>> RootNode::list() const {
  std::vector<FolderEntry> entries = {entry(kControlName, true)};
  for (const FoundModel& model : engine().models().models) {
    entries.push_back(entry(model.name, true));
  }
  return entries;
}

}  // namespace qcache

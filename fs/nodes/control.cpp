#include "fs/nodes/control.h"

#include <algorithm>

namespace qcache {

Result<FoundNode> ControlFolderNode::find(const std::string& name) const {
  const auto file = std::ranges::find(ControlFiles::all(), name, &ControlFiles::File::name);
  if (file == ControlFiles::all().end()) {
    return no_such("control file", name);
  }
  return found_node<ControlFileNode>(context(), path_of(name), *file);
}

Result<std::vector<FolderEntry>> ControlFolderNode::list() const {
  std::vector<FolderEntry> entries;
  entries.reserve(ControlFiles::all().size());
  for (const ControlFiles::File& file : ControlFiles::all()) {
    entries.push_back(entry(file.name, false));
  }
  return entries;
}

NodeAttributes ControlFileNode::attributes() const {
  return control_file_attributes(path(), text().size(), engine().now_ns());
}

Result<OpenFile> ControlFileNode::open(int64_t& settles_in_ns) const {
  settles_in_ns = 0;
  return OpenFile{text(), ReadThrough::kDaemon};  // its size may be another one than a stat has just told
}

}  // namespace qcache

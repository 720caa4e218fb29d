#include "fs/tree.h"

#include <sys/stat.h>

#include <fmt/format.h>

namespace qcache {
namespace {

constexpr std::string_view kControlName = ".qcache";
constexpr mode_t kControlFileMode = S_IFREG | 0444;
// Writable by the owner: setting an attribute asks for it of files, rm of folders. Nothing can be written all the same.
constexpr mode_t kFileMode = S_IFREG | 0644;
constexpr mode_t kFolderMode = S_IFDIR | 0755;
// Long, because bytes, size and times of a sealed file never change; bounded, because "accessed" does.
constexpr double kSealedValidSeconds = 60;
constexpr double kFolderValidSeconds = 1;

NodeAttributes folder_attributes(std::string_view path, int64_t mtime_ns) {
  NodeAttributes out;
  out.mode = kFolderMode;
  out.inode = inode_of_path(path);
  out.mtime_ns = mtime_ns;
  out.atime_ns = mtime_ns;
  out.valid_seconds = kFolderValidSeconds;
  return out;
}

NodeAttributes artifact_attributes(const std::string& path, const ArtifactInfo& info) {
  NodeAttributes out;
  out.mode = kFileMode;
  out.inode = inode_of_path(path);
  out.size_bytes = info.size_bytes;
  out.disk_bytes = info.disk_bytes;
  out.mtime_ns = info.source_mtime_ns;
  out.atime_ns = info.record ? info.record->accessed_ns : info.source_mtime_ns;
  out.valid_seconds = info.record ? kSealedValidSeconds : 0;
  return out;
}

Error no_such(std::string_view what, std::string_view name) {
  return Error{ErrorKind::kNotFound, 0, fmt::format("no {} '{}'", what, name)};
}

}  // namespace

uint64_t inode_of_path(std::string_view path) {
  if (path.empty()) {
    return 1;
  }
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (const char c : path) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  return hash < 2 ? hash + 2 : hash;
}

Result<ResolvedNode> Tree::lookup(const Node& parent, const std::string& name) const {
  switch (parent.kind) {
    case NodeKind::kRoot: {
      if (name == kControlName) {
        Node node{NodeKind::kControl, name, name, {}, {}, false};
        return ResolvedNode{std::move(node), folder_attributes(name, control_.started_ns())};
      }
      QCACHE_TRY_ASSIGN(const FoundModel found, engine_.locate_model(name));
      Node node{NodeKind::kModel, name, name, {}, {}, false};
      node.artifact.model = name;
      return ResolvedNode{std::move(node), folder_attributes(name, control_.started_ns())};
    }
    case NodeKind::kControl:
      return lookup_control(name);
    case NodeKind::kModel:
      return lookup_dtype(parent, name);
    case NodeKind::kDtype:
      return lookup_artifact(parent, name);
    default:
      return fail(no_such("entry", name));
  }
}

Result<ResolvedNode> Tree::lookup_control(const std::string& name) const {
  const auto kind = ControlFiles::kind_of(name);
  if (!kind) {
    return fail(no_such("control file", name));
  }
  const std::string path = fmt::format("{}/{}", kControlName, name);
  ResolvedNode out{Node{*kind, path, path, {}, {}, false}, {}};
  QCACHE_TRY_ASSIGN(out.attributes, attributes(out.node));
  return out;
}

Result<ResolvedNode> Tree::lookup_dtype(const Node& model, const std::string& name) const {
  const Scheme* scheme = find_scheme(name);
  if (scheme == nullptr) {
    return fail(no_such("dtype", name));
  }
  QCACHE_TRY_ASSIGN(const std::shared_ptr<const SourceModel> source, engine_.model(model.artifact.model));
  if (const auto refusal = scheme->refusal(*source)) {
    return fail(ErrorKind::kNotFound, *refusal);
  }
  // An alias is a folder of its own: the kernel allows a folder one name only.
  const std::string path = model.path + "/" + name;
  Node node{NodeKind::kDtype, path, path, model.artifact, {}, false};
  node.artifact.scheme = scheme;
  return ResolvedNode{std::move(node), folder_attributes(path, control_.started_ns())};
}

Result<ResolvedNode> Tree::lookup_artifact(const Node& dtype, const std::string& name) const {
  const auto rank = rank_of_file_name(name);
  if (!rank || !rank_is_served(*rank)) {
    return fail(no_such("file", name));
  }
  Node node{NodeKind::kArtifact, {}, {}, dtype.artifact, {}, false};
  node.artifact.rank = *rank;
  node.path = node.artifact.virtual_path();
  QCACHE_TRY_ASSIGN(const ArtifactInfo info, engine_.describe(node.artifact));
  node.recipe = info.recipe;
  node.sealed = info.record.has_value();
  node.size_bytes = info.size_bytes;
  node.mtime_ns = info.source_mtime_ns;
  node.key = fmt::format("{} {}", node.path, to_hex(node.recipe));
  if (info.record) {
    const BackingStamp& backing = info.record->backing;
    node.key += fmt::format(" {} {} {}", backing.device, backing.inode, backing.ctime_ns);
  }
  const NodeAttributes found = artifact_attributes(node.path, info);
  return ResolvedNode{std::move(node), found};
}

Result<NodeAttributes> Tree::attributes(const Node& node) const {
  if (node.is_directory()) {
    return folder_attributes(node.path, control_.started_ns());
  }
  if (node.is_control_file()) {
    NodeAttributes out;
    out.mode = kControlFileMode;
    out.inode = inode_of_path(node.path);
    out.size_bytes = control_.render(node.kind).size();
    out.mtime_ns = engine_.now_ns();
    out.atime_ns = out.mtime_ns;
    return out;
  }
  QCACHE_TRY_ASSIGN(const ArtifactInfo info, engine_.describe(node.artifact));
  if (info.recipe != node.recipe) {
    return fail(ErrorKind::kSourceChanged, "the model changed since " + node.path + " was looked up");
  }
  return artifact_attributes(node.path, info);
}

NodeAttributes Tree::attributes_when_opened(const Node& node) {
  NodeAttributes out;
  out.mode = kFileMode;
  out.inode = inode_of_path(node.path);
  out.size_bytes = node.size_bytes;
  out.mtime_ns = node.mtime_ns;
  out.atime_ns = node.mtime_ns;
  return out;
}

Result<std::vector<Tree::Entry>> Tree::list(const Node& folder) const {
  std::vector<Entry> entries;
  const auto add = [&](std::string_view name, bool directory) {
    const std::string path = folder.path.empty() ? std::string(name) : fmt::format("{}/{}", folder.path, name);
    entries.push_back(Entry{std::string(name), inode_of_path(path), directory});
  };
  switch (folder.kind) {
    case NodeKind::kRoot:
      add(kControlName, true);
      for (const FoundModel& model : engine_.models().models) {
        add(model.name, true);
      }
      break;
    case NodeKind::kControl:
      for (const std::string_view name : ControlFiles::names()) {
        add(name, false);
      }
      break;
    case NodeKind::kModel: {
      // A model that cannot be served is an empty folder; `qcache info` and /.qcache/errors say why.
      const auto source = engine_.model(folder.artifact.model);
      if (!source) {
        if (source.error().kind == ErrorKind::kNotFound) {
          return fail(source.error());
        }
        break;
      }
      for (const DtypeInfo& dtype : Engine::dtypes(**source)) {
        if (dtype.refusal.empty()) {
          add(dtype.scheme->name(), true);
        }
      }
      break;
    }
    case NodeKind::kDtype:
      add("0.bin", false);
      break;
    default:
      return fail(ErrorKind::kInvalidArgument, folder.path + " is not a folder");
  }
  return entries;
}

Status Tree::remove(const Node& node) const {
  switch (node.kind) {
    case NodeKind::kArtifact:
      return engine_.remove(node.artifact);
    case NodeKind::kDtype:
    case NodeKind::kModel: {
      QCACHE_TRY_ASSIGN(const std::vector<Entry> entries, list(node));
      for (const Entry& entry : entries) {
        QCACHE_TRY_ASSIGN(const ResolvedNode child, lookup(node, entry.name));
        QCACHE_TRY(remove(child.node));
      }
      return {};
    }
    default:
      return fail(ErrorKind::kPermission, "the folder " + node.path + " cannot be removed");
  }
}

}  // namespace qcache

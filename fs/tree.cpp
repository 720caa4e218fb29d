#include "fs/tree.h"

#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include <fmt/format.h>

#include "core/base/digest.h"
#include "core/layout/containers.h"

namespace qcache {
namespace {

constexpr std::string_view kControlName = ".qcache";
// transformers, where peft is installed, first asks whether the folder is an adapter's, then sets up the model (half a
// second and more, on one core), then opens the weights. Whoever only looks around asks for no file that is not listed.
constexpr std::string_view kNameSoughtByLoaders = "adapter_config.json";
constexpr mode_t kControlFileMode = S_IFREG | 0444;
// Writable by the owner: setting an attribute asks for it of files, rm of folders. Nothing can be written all the same.
constexpr mode_t kFileMode = S_IFREG | 0644;
constexpr mode_t kFolderMode = S_IFDIR | 0755;
constexpr mode_t kOthers = 0077;
// Nobody gets to write by his group; whether a file may be executed is nothing that the mount tells.
constexpr mode_t kSharedFileBits = 0044;
constexpr mode_t kSharedFolderBits = 0055;
// Long, because bytes, size and times of a sealed file never change; bounded, because "accessed" does.
constexpr double kSealedValidSeconds = 60;
constexpr double kFolderValidSeconds = 1;

// Who may do what is asked anew as often as for folders: what the source forbids shall not be allowed for long.
void share(const std::optional<SharedAccess>& access, NodeAttributes& out) {
  if (access) {
    out.mode = (out.mode & ~kOthers) | (access->bits & (S_ISDIR(out.mode) ? kSharedFolderBits : kSharedFileBits));
    out.gid = access->gid;
    out.valid_seconds = std::min(out.valid_seconds, kFolderValidSeconds);
  }
}

NodeAttributes folder_attributes(std::string_view path, int64_t mtime_ns,
                                 const std::optional<SharedAccess>& access = std::nullopt) {
  NodeAttributes out;
  out.mode = kFolderMode;
  out.inode = inode_of_path(path);
  out.mtime_ns = mtime_ns;
  out.atime_ns = mtime_ns;
  out.valid_seconds = kFolderValidSeconds;
  share(access, out);
  return out;
}

NodeAttributes artifact_attributes(const std::string& path, const ArtifactInfo& info,
                                   const std::optional<SharedAccess>& access) {
  NodeAttributes out;
  out.mode = kFileMode;
  out.inode = inode_of_path(path);
  out.size_bytes = info.size_bytes;
  out.disk_bytes = info.disk_bytes;
  out.mtime_ns = info.source_mtime_ns;
  out.atime_ns = info.record ? info.record->accessed_ns : info.source_mtime_ns;
  out.valid_seconds = info.record ? kSealedValidSeconds : 0;
  share(access, out);
  return out;
}

/// The folder that a path lies in, "" where that is `<rank>/` itself.
std::string_view folder_of(std::string_view relative) {
  const size_t slash = relative.rfind('/');
  return slash == std::string_view::npos ? std::string_view() : relative.substr(0, slash);
}

std::string_view name_in_folder(std::string_view relative) {
  return relative.substr(relative.rfind('/') + 1);
}

const FolderFile* find_file(const ModelFolder& folder, std::string_view relative) {
  const auto found = std::ranges::find(folder.files, relative, &FolderFile::name);
  return found == folder.files.end() ? nullptr : &*found;
}

/// What a path below `<model>/<dtype>/` begins with.
std::string first_name(const std::string& path) {
  return path.substr(0, path.find('/'));
}

/// Whether the folder holds nothing of the source's.
bool is_own_folder(const ModelFolder& folder, std::string_view relative) {
  return std::ranges::find(folder.own_folders, relative) != folder.own_folders.end();
}

/// The cached files that stand in the folder `<rank>/`, with their paths below it.
std::vector<std::pair<ArtifactName, std::string>> files_of_rank(const ArtifactName& folder,
                                                                const std::string& component) {
  std::vector<std::pair<ArtifactName, std::string>> out;
  for (const Container* const container : all_containers()) {
    if (container->stands_in_folder() && container->has_rank(folder.rank)) {
      const std::string path = container->path_of(folder.rank, component);
      ArtifactName name = folder;
      name.container = container;
      name.rank = container->rank_behind(folder.rank);
      out.emplace_back(std::move(name), path.substr(path.find('/') + 1));
    }
  }
  return out;
}

/// The files whose bytes the weights are made of.
std::vector<SourceSpot> weight_spots(const SourceModel& model) {
  return {model.spots.begin(), model.spots.begin() + static_cast<ptrdiff_t>(model.files.size())};
}

std::string key_of(const std::optional<SharedAccess>& access) {
  return access ? fmt::format("{:o} {}", access->bits, access->gid) : std::string();
}

// Another state of the file is another node, so that no page of the old one is served for the new, and no node is
// opened with two backing files; so is another access, as the kernel asks for a node's mode before it opens it.
std::string companion_key(std::string_view path, const FileStat& stat, const std::optional<SharedAccess>& access) {
  return fmt::format("{} {} {} {} {} {} {}", path, stat.device, stat.inode, stat.size_bytes, stat.mtime_ns,
                     stat.ctime_ns, key_of(access));
}

std::string generated_key(std::string_view path, std::string_view text, const std::optional<SharedAccess>& access) {
  return fmt::format("{} {} {}", path, to_hex(sha256(std::as_bytes(std::span(text)))), key_of(access));
}

tl::unexpected<Error> changed(const Node& node) {
  return fail(ErrorKind::kSourceChanged, node.path + " changed since it was looked up");
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
        Node node{NodeKind::kControl, name, name};
        return ResolvedNode{std::move(node), folder_attributes(name, control_.started_ns())};
      }
      QCACHE_TRY_ASSIGN(const FoundModel found, engine_.locate_model(name));
      Node node{NodeKind::kModel, name, name};
      node.artifact.model = name;
      return resolved_folder(std::move(node));
    }
    case NodeKind::kControl:
      return lookup_control(name);
    case NodeKind::kModel:
      return lookup_dtype(parent, name);
    case NodeKind::kDtype:
      return lookup_rank(parent, name);
    case NodeKind::kFolder:
      return lookup_in_folder(parent, name);
    default:
      return fail(no_such("entry", name));
  }
}

std::optional<ArtifactName> Tree::foretold_load(const Node& folder, std::string_view name) {
  if (folder.kind != NodeKind::kFolder || !folder.relative.empty() || name != kNameSoughtByLoaders) {
    return std::nullopt;
  }
  ArtifactName weights = folder.artifact;
  weights.container = &container_folder_weights();
  weights.rank = weights.container->rank_behind(weights.rank);
  return weights;
}

Result<ResolvedNode> Tree::lookup_control(const std::string& name) const {
  const auto kind = ControlFiles::kind_of(name);
  if (!kind) {
    return fail(no_such("control file", name));
  }
  const std::string path = fmt::format("{}/{}", kControlName, name);
  ResolvedNode out{Node{*kind, path, path}, {}};
  QCACHE_TRY_ASSIGN(out.attributes, attributes(out.node));
  return out;
}

Result<ResolvedNode> Tree::lookup_dtype(const Node& model, const std::string& name) const {
  const Scheme* scheme = find_scheme(name);
  if (scheme == nullptr) {
    return fail(no_such("dtype", name));
  }
  QCACHE_TRY_ASSIGN(const std::shared_ptr<const SourceModel> source, engine_.model(model.artifact.model));
  if (const auto refusal = why_not_served(*source, *scheme)) {
    return fail(ErrorKind::kNotFound, *refusal);
  }
  // An alias is a folder of its own: the kernel allows a folder one name only.
  const std::string path = model.path + "/" + name;
  Node node{NodeKind::kDtype, path, path, model.artifact};
  node.artifact.scheme = scheme;
  return resolved_folder(std::move(node));
}

Result<ResolvedNode> Tree::lookup_rank(const Node& dtype, const std::string& name) const {
  ArtifactName artifact = dtype.artifact;
  if (const auto file = parse_container_path(name)) {
    artifact.container = file->container;
    artifact.rank = file->rank;
    return lookup_artifact(artifact);
  }
  if (const auto rank = parse_rank(name)) {
    artifact.rank = *rank;
    QCACHE_TRY(engine_.folder(artifact.model, *artifact.scheme, *rank));
    const std::string path = dtype.path + "/" + name;
    return resolved_folder(Node{NodeKind::kFolder, path, path, artifact});
  }
  return fail(no_such("file", name));
}

Result<ResolvedNode> Tree::lookup_in_folder(const Node& folder, const std::string& name) const {
  QCACHE_TRY_ASSIGN(const std::shared_ptr<const ModelFolder> planned,
                    engine_.folder(folder.artifact.model, *folder.artifact.scheme, folder.artifact.rank));
  const std::string path = folder.relative.empty() ? name : folder.relative + "/" + name;
  for (const auto& [artifact, below] : files_of_rank(folder.artifact, planned->component)) {
    if (below == path) {
      QCACHE_TRY_ASSIGN(ResolvedNode found, lookup_artifact(artifact));
      found.node.shared = artifact.rank != folder.artifact.rank;
      return found;
    }
  }
  if (const FolderFile* file = find_file(*planned, path)) {
    QCACHE_TRY_ASSIGN(const std::string text,
                      engine_.folder_text(folder.artifact.model, *folder.artifact.scheme, *file));
    Node node{NodeKind::kGenerated, folder.path + "/" + name, {}, folder.artifact};
    node.relative = path;
    node.size_bytes = text.size();
    node.mtime_ns = control_.started_ns();
    QCACHE_TRY_ASSIGN(node.access, access_of_model(folder.artifact.model));
    node.key = generated_key(node.path, text, node.access);
    const NodeAttributes found = attributes_when_opened(node);
    return ResolvedNode{std::move(node), found};
  }
  if (is_own_folder(*planned, folder.relative)) {
    return fail(no_such("file", name));
  }
  const auto subfolder = [&]() {
    Node node{NodeKind::kFolder, folder.path + "/" + name, folder.path + "/" + name, folder.artifact};
    node.relative = path;
    return resolved_folder(std::move(node));
  };
  if (is_own_folder(*planned, path)) {
    return subfolder();
  }
  QCACHE_TRY_ASSIGN(const CompanionFiles companions, engine_.companions(folder.artifact.model));
  QCACHE_TRY_ASSIGN(const SourcePlace place, companions.look(path));
  const FileStat& stat = place.stat;
  if (stat.is_directory()) {
    return subfolder();
  }
  Node node{NodeKind::kCompanion, folder.path + "/" + name, {}, folder.artifact};
  node.relative = path;
  node.access = access_of({SourceSpot{place.real, stat.mode, stat.gid}});
  node.key = companion_key(node.path, stat, node.access);
  node.size_bytes = stat.size_bytes;
  node.disk_bytes = stat.allocated_bytes;
  node.mtime_ns = stat.mtime_ns;
  const NodeAttributes found = attributes_when_opened(node);
  return ResolvedNode{std::move(node), found};
}

ResolvedNode Tree::resolved_folder(Node node) const {
  const NodeAttributes found = folder_attributes(node.path, control_.started_ns(), access_of_folder(node));
  return {std::move(node), found};
}

std::optional<SharedAccess> Tree::access_of(const std::vector<SourceSpot>& spots) const {
  return shared_ ? std::optional(engine_.folders().access(spots)) : std::nullopt;
}

Result<std::optional<SharedAccess>> Tree::access_of_model(const std::string& name) const {
  if (!shared_) {
    return std::optional<SharedAccess>();
  }
  QCACHE_TRY_ASSIGN(const std::shared_ptr<const SourceModel> source, engine_.model(name));
  return access_of(source->spots);
}

std::optional<SharedAccess> Tree::access_of_folder(const Node& node) const {
  if (!shared_ || node.artifact.model.empty()) {
    return std::nullopt;
  }
  const SourceFolders& folders = engine_.folders();
  const auto model = engine_.locate_model(node.artifact.model);
  if (!model) {
    return SharedAccess{};
  }
  auto place = folders.look(node.relative.empty() ? model->path : model->path + '/' + node.relative);
  if (!place && !node.relative.empty()) {
    place = folders.look(model->path);  // a folder that qcache adds
  }
  return place ? folders.access({SourceSpot{place->real, place->stat.mode, place->stat.gid}}) : SharedAccess{};
}

Result<SourceFile> Tree::open_companion(const Node& node) const {
  QCACHE_TRY_ASSIGN(const CompanionFiles companions, engine_.companions(node.artifact.model));
  QCACHE_TRY_ASSIGN(SourceFile source, companions.open(node.relative));
  if (companion_key(node.path, source.stat(), access_of({source.spot()})) != node.key) {
    return changed(node);
  }
  return source;
}

Result<std::string> Tree::generated_text(const Node& node) const {
  QCACHE_TRY_ASSIGN(const std::shared_ptr<const ModelFolder> planned,
                    engine_.folder(node.artifact.model, *node.artifact.scheme, node.artifact.rank));
  const FolderFile* const file = find_file(*planned, node.relative);
  if (file == nullptr) {
    return fail(no_such("file", node.relative));
  }
  QCACHE_TRY_ASSIGN(std::string text, engine_.folder_text(node.artifact.model, *node.artifact.scheme, *file));
  QCACHE_TRY_ASSIGN(const std::optional<SharedAccess> access, access_of_model(node.artifact.model));
  if (generated_key(node.path, text, access) != node.key) {
    return changed(node);
  }
  return text;
}

Result<ResolvedNode> Tree::lookup_artifact(const ArtifactName& artifact) const {
  QCACHE_TRY_ASSIGN(const ArtifactInfo info, engine_.describe(artifact));
  Node node{NodeKind::kArtifact, info.name.virtual_path(), {}, info.name};
  node.recipe = info.recipe;
  node.sealed = info.record.has_value();
  node.size_bytes = info.size_bytes;
  node.disk_bytes = info.disk_bytes;
  node.mtime_ns = info.source_mtime_ns;
  node.key = fmt::format("{} {}", node.path, to_hex(node.recipe));
  if (info.record) {
    const BackingStamp& backing = info.record->backing;
    node.key += fmt::format(" {} {}", backing.inode, backing.ctime_ns);
  }
  node.access = access_of(weight_spots(*info.source));
  const NodeAttributes found = artifact_attributes(node.path, info, node.access);
  return ResolvedNode{std::move(node), found};
}

Result<NodeAttributes> Tree::attributes(const Node& node) const {
  if (node.is_directory()) {
    return folder_attributes(node.path, control_.started_ns(), access_of_folder(node));
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
  if (node.kind == NodeKind::kGenerated || node.kind == NodeKind::kCompanion) {
    return attributes_when_opened(node);  // names are looked up anew for every open and stat
  }
  QCACHE_TRY_ASSIGN(const ArtifactInfo info, engine_.describe(node.artifact));
  if (info.recipe != node.recipe) {
    return fail(ErrorKind::kSourceChanged, "the model changed since " + node.path + " was looked up");
  }
  return artifact_attributes(node.path, info, access_of(weight_spots(*info.source)));
}

NodeAttributes Tree::attributes_when_opened(const Node& node) {
  NodeAttributes out;
  out.mode = kFileMode;
  out.inode = inode_of_path(node.path);
  out.size_bytes = node.size_bytes;
  out.disk_bytes = node.disk_bytes;
  out.mtime_ns = node.mtime_ns;
  out.atime_ns = node.mtime_ns;
  share(node.access, out);
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
    case NodeKind::kDtype: {
      QCACHE_TRY_ASSIGN(const std::shared_ptr<const SourceModel> source, engine_.model(folder.artifact.model));
      const auto folder_of_0 = engine_.folder(folder.artifact.model, *folder.artifact.scheme, 0);
      std::map<uint32_t, std::set<std::string>> names;  // by rank
      for (const Container* const container : all_containers()) {
        const bool is_there = container->stands_in_folder() ? folder_of_0.has_value()
                                                            : !container->why_absent(*source, *folder.artifact.scheme);
        if (is_there) {
          names[0].insert(first_name(container->path_of(0, "")));
        }
      }
      for (const ArtifactName& file : engine_.cached_ranks(folder.artifact.model, *folder.artifact.scheme)) {
        names[file.rank].insert(first_name(file.file()));
      }
      for (const auto& [rank, of_rank] : names) {
        for (const std::string& name : of_rank) {
          add(name, parse_rank(name).has_value());
        }
      }
      break;
    }
    case NodeKind::kFolder: {
      std::map<std::string, bool> names;  // sorted; what qcache adds hides what the source has
      QCACHE_TRY_ASSIGN(const std::shared_ptr<const ModelFolder> planned,
                        engine_.folder(folder.artifact.model, *folder.artifact.scheme, folder.artifact.rank));
      if (!is_own_folder(*planned, folder.relative)) {
        QCACHE_TRY_ASSIGN(const CompanionFiles companions, engine_.companions(folder.artifact.model));
        QCACHE_TRY_ASSIGN(const std::vector<CompanionEntry> passed, companions.list(folder.relative));
        for (const CompanionEntry& entry : passed) {
          names[entry.name] = entry.directory;
        }
      }
      const auto add_below = [&](std::string_view path, bool directory) {
        if (folder_of(path) == folder.relative) {
          names[std::string(name_in_folder(path))] = directory;
        }
      };
      for (const auto& [artifact, path] : files_of_rank(folder.artifact, planned->component)) {
        add_below(path, false);
      }
      for (const FolderFile& file : planned->files) {
        add_below(file.name, false);
      }
      for (const std::string& path : planned->own_folders) {
        add_below(path, true);
      }
      for (const auto& [name, directory] : names) {
        add(name, directory);
      }
      break;
    }
    default:
      return fail(ErrorKind::kInvalidArgument, folder.path + " is not a folder");
  }
  return entries;
}

Status Tree::remove(const Node& node) const {
  switch (node.kind) {
    case NodeKind::kArtifact:
      return node.shared ? Status() : engine_.remove(node.artifact);
    case NodeKind::kGenerated:
    case NodeKind::kCompanion:
      return {};  // holds nothing in the cache; refusing would make rm -r of a folder fail
    case NodeKind::kFolder: {
      QCACHE_TRY_ASSIGN(const std::shared_ptr<const ModelFolder> planned,
                        engine_.folder(node.artifact.model, *node.artifact.scheme, node.artifact.rank));
      for (const auto& [artifact, path] : files_of_rank(node.artifact, planned->component)) {
        const bool below = node.relative.empty() || path.starts_with(node.relative + '/');
        if (below && artifact.rank == node.artifact.rank) {
          QCACHE_TRY(engine_.remove(artifact));
        }
      }
      return {};
    }
    case NodeKind::kDtype:
    case NodeKind::kModel:
      return engine_.remove_all(node.artifact.model, node.artifact.scheme);
    default:
      return fail(ErrorKind::kPermission, "the folder " + node.path + " cannot be removed");
  }
}

}  // namespace qcache

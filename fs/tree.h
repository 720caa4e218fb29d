#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/engine/engine.h"
#include "fs/control_files.h"
#include "fs/node.h"

namespace qcache {

/// What stat(2) shall say of a node.
struct NodeAttributes {
  mode_t mode = 0;
  uint64_t inode = 0;
  uint64_t size_bytes = 0;
  uint64_t disk_bytes = 0;
  int64_t mtime_ns = 0;
  int64_t atime_ns = 0;
  std::optional<uint32_t> gid;  ///< none: that of whoever mounted
  /// How long the kernel may answer from this without asking, in seconds.
  double valid_seconds = 0;
};

struct ResolvedNode {
  Node node;
  NodeAttributes attributes;
};

/// The names of the mount and what lies behind them: the virtual tree, without FUSE. Thread-safe, as Engine is.
///
///     /                        models, and .qcache
///     /<model>/                the dtypes this model can be served in
///     /<model>/<dtype>/        0.bin, and the folder 0; those of other ranks while they hold bytes
///     /<model>/<dtype>/0/      what frameworks load: model.safetensors, config.json, the model's other files
///     /<model>/<dtype>/16/     the same, and the folder lora with the factors of rank 16
///     /.qcache/                status, metrics, errors
class Tree {
 public:
  /// `shared`: other users than the owner see the mount, and may do with a node what they may do with its sources.
  Tree(Engine& engine, const ControlFiles& control, bool shared)
      : engine_(engine), control_(control), shared_(shared) {}

  /// The child `name` of a folder. kNotFound where there is none.
  [[nodiscard]] Result<ResolvedNode> lookup(const Node& parent, const std::string& name) const;

  /// The weights that a program is about to load which looks for `name` in a folder that has no such file; nothing
  /// where that tells nothing.
  [[nodiscard]] static std::optional<ArtifactName> foretold_load(const Node& folder, std::string_view name);

  /// The attributes of a node now. kSourceChanged where its name leads to another node by now.
  [[nodiscard]] Result<NodeAttributes> attributes(const Node& node) const;
  /// Those of a file that attributes() cannot tell any more: as it was when it was looked up.
  [[nodiscard]] static NodeAttributes attributes_when_opened(const Node& node);

  /// Opens the file of a kCompanion node. kSourceChanged where it is in another state by now.
  [[nodiscard]] Result<SourceFile> open_companion(const Node& node) const;
  /// The text of a kGenerated node, whose name leads to another one when a file of the weights is sealed or dropped:
  /// kSourceChanged.
  [[nodiscard]] Result<std::string> generated_text(const Node& node) const;

  /// Names and kinds in a folder, without "." and "..". Reads headers where it must, never tensor bytes.
  struct Entry {
    std::string name;
    uint64_t inode = 0;
    bool directory = false;
  };
  [[nodiscard]] Result<std::vector<Entry>> list(const Node& folder) const;

  /// Drops the cached bytes of a file, or of everything below a folder.
  [[nodiscard]] Status remove(const Node& node) const;

 private:
  [[nodiscard]] Result<ResolvedNode> lookup_control(const std::string& name) const;
  [[nodiscard]] Result<ResolvedNode> lookup_dtype(const Node& model, const std::string& name) const;
  [[nodiscard]] Result<ResolvedNode> lookup_rank(const Node& dtype, const std::string& name) const;
  [[nodiscard]] Result<ResolvedNode> lookup_in_folder(const Node& folder, const std::string& name) const;
  [[nodiscard]] Result<ResolvedNode> lookup_artifact(const ArtifactName& artifact) const;
  [[nodiscard]] ResolvedNode resolved_folder(Node node) const;
  /// Of the source's folder that a folder of the mount stands for.
  [[nodiscard]] std::optional<SharedAccess> access_of_folder(const Node& node) const;
  /// Of all files that a model was read from: what qcache writes tells of them.
  [[nodiscard]] Result<std::optional<SharedAccess>> access_of_model(const std::string& name) const;
  [[nodiscard]] std::optional<SharedAccess> access_of(const std::vector<SourceSpot>& spots) const;

  Engine& engine_;
  const ControlFiles& control_;
  const bool shared_;
};

/// st_ino of a path of the mount: the same in every mount, never 0 or 1 except for the root's 1.
[[nodiscard]] uint64_t inode_of_path(std::string_view path);

}  // namespace qcache

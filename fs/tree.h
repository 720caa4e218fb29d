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
  Tree(Engine& engine, const ControlFiles& control) : engine_(engine), control_(control) {}

  /// The child `name` of a folder. kNotFound where there is none.
  [[nodiscard]] Result<ResolvedNode> lookup(const Node& parent, const std::string& name) const;

  /// The weights that a program is about to load which looks for `name` in a folder that has no such file; nothing
  /// where that tells nothing.
  [[nodiscard]] static std::optional<ArtifactName> foretold_load(const Node& folder, std::string_view name);

  /// The attributes of a node now. kSourceChanged where its name leads to another node by now.
  [[nodiscard]] Result<NodeAttributes> attributes(const Node& node) const;
  /// Those of a file that attributes() cannot tell any more: as it was when it was looked up.
  [[nodiscard]] static NodeAttributes attributes_when_opened(const Node& node);

  /// The key of a companion's node. Another state of the file is another node, so that no page of the old one is served
  /// for the new, and no node is opened with two backing files.
  [[nodiscard]] static std::string companion_key(std::string_view path, const FileStat& stat);
  /// The same for a kGenerated file, whose text changes when a file of the weights is sealed or dropped.
  [[nodiscard]] static std::string generated_key(std::string_view path, std::string_view text);
  /// What a kGenerated file says now.
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

  Engine& engine_;
  const ControlFiles& control_;
};

/// st_ino of a path of the mount: the same in every mount, never 0 or 1 except for the root's 1.
[[nodiscard]] uint64_t inode_of_path(std::string_view path);

}  // namespace qcache

#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/engine/artifact_name.h"
#include "fs/node_attributes.h"
#include "fs/node_context.h"
#include "fs/open_file.h"
#include "fs/xattrs.h"

namespace qcache {

/// One file or folder of the mount, as the kernel may remember it.
///
/// That may be for long, so a node holds what tells it from others and what stat(2) says of an open file, but never a
/// model or a plan: everything that can change is asked anew. Two nodes with one key are the same inode of the kernel,
/// two with one path need not be: see ArtifactFileNode.
///
/// Immutable, thread-safe; its NodeContext outlives it. What it answers it may ask of files of model(), and so take as
/// long as their filesystem does. Fails as Engine does, and with kNotFound where what it stands for is gone.
class Node {
 public:
  virtual ~Node() = default;
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  /// In the mount, without leading slash.
  [[nodiscard]] std::string_view path() const { return std::string_view(key_).substr(0, path_bytes_); }
  /// Tells nodes apart: the path, and the state of what is there where that makes another node.
  [[nodiscard]] const std::string& key() const { return key_; }
  /// st_ino.
  [[nodiscard]] uint64_t inode() const { return inode_of_path(path()); }
  /// The model whose files a request for the node asks; empty where it asks none, and so can be answered at once.
  [[nodiscard]] virtual std::string_view model() const;

  /// As they are now. Of a file whose name leads to another node by now: as it was when it was looked up.
  [[nodiscard]] virtual NodeAttributes attributes() const = 0;
  /// Whether attributes() asks files of model().
  [[nodiscard]] virtual bool attributes_ask_files() const { return false; }

  /// Those it has now.
  [[nodiscard]] virtual Result<Xattrs> xattrs() const { return Xattrs(); }
  /// Sets a control, to 1 or 0 (true, false, yes, no). kPermission where the node has none of this name.
  /// `settles_in_ns` as of Engine::open_now().
  [[nodiscard]] virtual Status set_xattr(std::string_view name, std::string_view value, int64_t& settles_in_ns) const;

  /// Drops the cached bytes of a file, or of everything below a folder. kPermission where nothing can be dropped.
  [[nodiscard]] virtual Status remove() const;

 protected:
  /// `state`: what beside the path tells it from other nodes.
  Node(const NodeContext& context, std::string_view path, std::string_view state = {});

  [[nodiscard]] const NodeContext& context() const { return context_; }
  [[nodiscard]] Engine& engine() const { return context_.engine(); }
  [[nodiscard]] std::string_view state() const;
  /// What of the path comes after its first names; empty where it has no more.
  [[nodiscard]] std::string_view path_after(unsigned names) const;
  /// For who finds that the path leads to another node by now.
  [[nodiscard]] tl::unexpected<Error> changed() const;

 private:
  const NodeContext& context_;
  const std::string key_;  // begins with the path
  const size_t path_bytes_;
};

/// What a name leads to. The attributes come along, because what was asked to find the node tells them.
struct FoundNode {
  std::shared_ptr<const Node> node;
  NodeAttributes attributes;
};

/// A name in a folder.
struct FolderEntry {
  std::string name;
  uint64_t inode = 0;
  bool folder = false;
};

/// A folder of the mount.
class FolderNode : public Node {
 public:
  /// The child `name`. kNotFound where there is none.
  [[nodiscard]] Result<FoundNode> lookup(const std::string& name) const;
  /// Names and kinds of what is in it, without "." and "..". Reads headers where it must, never tensor bytes.
  [[nodiscard]] virtual Result<std::vector<FolderEntry>> list() const = 0;

  /// As model(), of a request for its child.
  [[nodiscard]] virtual std::string_view model_of(std::string_view /*name*/) const { return model(); }
  /// The weights that a program is about to load which looks for `name` and finds nothing; none where that tells
  /// nothing.
  [[nodiscard]] virtual std::optional<ArtifactName> foretold_load(std::string_view /*name*/) const {
    return std::nullopt;
  }

  [[nodiscard]] NodeAttributes attributes() const final;

 protected:
  using Node::Node;

  /// `name` is one name, whatever is in it.
  [[nodiscard]] virtual Result<FoundNode> find(const std::string& name) const = 0;
  /// What others may do in it.
  [[nodiscard]] virtual NodeAccess access() const { return std::nullopt; }

  [[nodiscard]] std::string path_of(std::string_view name) const;
  [[nodiscard]] FolderEntry entry(std::string_view name, bool folder) const;
};

/// What serves who is about to open a file best.
struct OpenAdvice {
  enum class What {
    kOpen,
    kWait,       ///< until asked again: it is about to become a file that is read faster
    kLookAgain,  ///< it has become another node, which is read faster
  };
  What what = What::kOpen;
  std::chrono::nanoseconds ask_again_in{0};
};

/// A file of the mount.
class FileNode : public Node {
 public:
  [[nodiscard]] virtual OpenAdvice advice() const { return {}; }
  /// The weights that a program is about to load which opens it; none where that tells nothing.
  [[nodiscard]] virtual std::optional<ArtifactName> foretold_load() const { return std::nullopt; }
  /// kSourceChanged where its name leads to another node by now: look again. `settles_in_ns` as of Engine::open_now(),
  /// else 0.
  [[nodiscard]] virtual Result<OpenFile> open(int64_t& settles_in_ns) const = 0;

 protected:
  using Node::Node;
};

/// A node that was just found, with its attributes.
template <typename SomeNode, typename... Arguments>
[[nodiscard]] FoundNode found_node(Arguments&&... arguments) {
  auto node = std::make_shared<const SomeNode>(std::forward<Arguments>(arguments)...);
  const NodeAttributes attributes = node->attributes();
  return {std::move(node), attributes};
}

[[nodiscard]] tl::unexpected<Error> no_such(std::string_view what, std::string_view name);

}  // namespace qcache

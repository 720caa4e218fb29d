#pragma once

#include "fs/node.h"

namespace qcache {

/// A file of quantized weights, or of what is added to them. Another state of it is another node, because the kernel
/// refuses (EIO) to open one inode in two modes, or with two backing files:
///
///   being made   one node per recipe; read by the daemon, tile by tile
///   complete     one node per file that was completed, until it is sealed; the kernel reads the backing file
///   sealed       one node per file that was sealed; likewise
///
/// What makes them different nodes, and how each is opened, is in artifact_file.cpp alone.
class ArtifactFileNode : public FileNode {
 public:
  /// The node of a file in the state that it is in now. `borrowed`: it was found under the name that the folder of a
  /// higher rank has for what is rank 0's.
  [[nodiscard]] static Result<FoundNode> find(const NodeContext& context, const ArtifactName& name,
                                              bool borrowed = false);

  [[nodiscard]] NodeAttributes attributes() const final;
  [[nodiscard]] bool attributes_ask_files() const final { return true; }
  [[nodiscard]] Result<Xattrs> xattrs() const final;
  [[nodiscard]] Status set_xattr(std::string_view name, std::string_view value, int64_t& settles_in_ns) const final;
  /// Also drops what was made of former states of the model. What is borrowed stays.
  [[nodiscard]] Status remove() const final;

 protected:
  /// `state`: what tells the node from those of other states of the file.
  ArtifactFileNode(const NodeContext& context, std::string_view state, const ArtifactInfo& info, const FileFacts& facts,
                   bool borrowed);

  /// The artifact, if it is still the one that was looked up: else kSourceChanged, on which the kernel looks the name
  /// up again, and opens what it finds.
  [[nodiscard]] Result<OpenArtifact> open_artifact(int64_t& settles_in_ns) const;
  /// As Engine::load_comes_in().
  [[nodiscard]] std::optional<std::chrono::nanoseconds> load_comes_in() const;

 private:
  const ArtifactName name_;
  const Sha256Digest recipe_;  // what its bytes are made of
  const FileFacts facts_;
  const bool borrowed_;
};

}  // namespace qcache

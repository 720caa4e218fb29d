#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/engine/artifact_name.h"
#include "core/model/shared_access.h"

namespace qcache {

enum class NodeKind : uint8_t {
  kRoot,
  kControl,
  kStatus,
  kMetrics,
  kErrors,
  kModel,
  kDtype,
  kFolder,     ///< `<rank>/` and the folders in it
  kGenerated,  ///< a small file that qcache writes into a folder
  kCompanion,  ///< a file of the source's folder
  kArtifact,   ///< quantized weights
};

/// One file or folder of the mount, as the kernel may remember it.
///
/// A file being made and the sealed file that replaces it are different nodes, because the kernel refuses (EIO) to open
/// one inode in two modes; so are sealed files with different backing files. `key` tells nodes apart, `path` does not.
struct Node {
  NodeKind kind = NodeKind::kRoot;
  std::string path{};       ///< in the mount, without leading slash; decides st_ino
  std::string key{};        ///< equal keys are the same inode
  ArtifactName artifact{};  ///< model from kModel on, scheme from kDtype on, rank from kFolder on, kind for kArtifact
  Sha256Digest recipe{};    ///< kArtifact: what its bytes are made of
  bool sealed = false;      ///< kArtifact
  /// kArtifact: found under the name that the folder of a higher rank has for what is rank 0's.
  bool shared = false;
  std::string relative{};  ///< kFolder, kGenerated, kCompanion: the path below `<rank>/`, empty for `<rank>/` itself
  // What stat(2) says of a file for as long as it is open, whatever its name leads to by then.
  uint64_t size_bytes = 0;
  uint64_t disk_bytes = 0;
  int64_t mtime_ns = 0;
  /// What users other than the owner may do; none where the mount is the owner's alone.
  std::optional<SharedAccess> access{};

  [[nodiscard]] bool is_directory() const {
    return kind == NodeKind::kRoot || kind == NodeKind::kControl || kind == NodeKind::kModel ||
           kind == NodeKind::kDtype || kind == NodeKind::kFolder;
  }
  [[nodiscard]] bool is_control_file() const {
    return kind == NodeKind::kStatus || kind == NodeKind::kMetrics || kind == NodeKind::kErrors;
  }
};

}  // namespace qcache

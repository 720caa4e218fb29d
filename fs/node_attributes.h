#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/model/shared_access.h"

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

/// What users other than the owner may do; none where the mount is the owner's alone.
using NodeAccess = std::optional<SharedAccess>;

/// One access as text, another for every other.
[[nodiscard]] std::string state_of(const NodeAccess& access);

/// What a file was like when it was looked up: what stat(2) says of it for as long as it is open, whatever its name
/// leads to by then.
struct FileFacts {
  uint64_t size_bytes = 0;
  uint64_t disk_bytes = 0;
  int64_t mtime_ns = 0;
  NodeAccess access{};
};

/// st_ino of a path of the mount: the same in every mount, never 0 or 1 except for the root's 1.
[[nodiscard]] uint64_t inode_of_path(std::string_view path);

[[nodiscard]] NodeAttributes folder_attributes(std::string_view path, int64_t mtime_ns, const NodeAccess& access);
/// Of a file that may be another one the next time it is looked up.
[[nodiscard]] NodeAttributes file_attributes(std::string_view path, const FileFacts& facts);
/// Of a complete file, whose bytes, size and times never change.
[[nodiscard]] NodeAttributes complete_file_attributes(std::string_view path, const FileFacts& facts,
                                                      int64_t accessed_ns);
/// Of a file that tells of the mount itself, and is written when it is read.
[[nodiscard]] NodeAttributes control_file_attributes(std::string_view path, uint64_t size_bytes, int64_t now_ns);

}  // namespace qcache

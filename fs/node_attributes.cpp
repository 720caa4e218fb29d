#include "fs/node_attributes.h"

#include <sys/stat.h>

#include <algorithm>

#include <fmt/format.h>

namespace qcache {
namespace {

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
void share(const NodeAccess& access, NodeAttributes& out) {
  if (access) {
    out.mode = (out.mode & ~kOthers) | (access->bits & (S_ISDIR(out.mode) ? kSharedFolderBits : kSharedFileBits));
    out.gid = access->gid;
    out.valid_seconds = std::min(out.valid_seconds, kFolderValidSeconds);
  }
}

}  // namespace

std::string state_of(const NodeAccess& access) {
  return access ? fmt::format("{:o} {}", access->bits, access->gid) : std::string();
}

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

NodeAttributes folder_attributes(std::string_view path, int64_t mtime_ns, const NodeAccess& access) {
  NodeAttributes out;
  out.mode = kFolderMode;
  out.inode = inode_of_path(path);
  out.mtime_ns = mtime_ns;
  out.atime_ns = mtime_ns;
  out.valid_seconds = kFolderValidSeconds;
  share(access, out);
  return out;
}

NodeAttributes file_attributes(std::string_view path, const FileFacts& facts) {
  NodeAttributes out;
  out.mode = kFileMode;
  out.inode = inode_of_path(path);
  out.size_bytes = facts.size_bytes;
  out.disk_bytes = facts.disk_bytes;
  out.mtime_ns = facts.mtime_ns;
  out.atime_ns = facts.mtime_ns;
  share(facts.access, out);
  return out;
}

NodeAttributes complete_file_attributes(std::string_view path, const FileFacts& facts, int64_t accessed_ns) {
  NodeAttributes out = file_attributes(path, facts);
  out.atime_ns = accessed_ns;
  out.valid_seconds = facts.access ? kFolderValidSeconds : kSealedValidSeconds;
  return out;
}

NodeAttributes control_file_attributes(std::string_view path, uint64_t size_bytes, int64_t now_ns) {
  NodeAttributes out;
  out.mode = kControlFileMode;
  out.inode = inode_of_path(path);
  out.size_bytes = size_bytes;
  out.mtime_ns = now_ns;
  out.atime_ns = now_ns;
  return out;
}

}  // namespace qcache

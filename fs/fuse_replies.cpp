#include "fs/fuse_replies.h"

#include <unistd.h>

#include <algorithm>

#include "fs/errno_of.h"

namespace qcache {
namespace {

timespec to_timespec(int64_t ns) {
  constexpr int64_t kNanosecondsPerSecond = 1'000'000'000;
  timespec out{};
  out.tv_sec = ns / kNanosecondsPerSecond;
  out.tv_nsec = ns % kNanosecondsPerSecond;
  return out;
}

}  // namespace

struct ::stat to_stat(const NodeAttributes& from) {
  static const uid_t kOwnUser = ::geteuid();
  static const gid_t kOwnGroup = ::getegid();
  struct ::stat out {};
  out.st_ino = from.inode;
  out.st_mode = from.mode;
  out.st_nlink = S_ISDIR(from.mode) ? 2 : 1;
  out.st_uid = kOwnUser;
  out.st_gid = from.gid.value_or(kOwnGroup);
  out.st_size = static_cast<off_t>(from.size_bytes);
  // GNU tar -S and others archive a file without blocks as one hole, unread.
  const uint64_t disk_bytes = std::max<uint64_t>(from.disk_bytes, from.size_bytes > 0 ? 1 : 0);
  out.st_blocks = static_cast<blkcnt_t>((disk_bytes + 511) / 512);
  out.st_blksize = static_cast<blksize_t>(kBlockSize);
  out.st_atim = to_timespec(from.atime_ns);
  out.st_mtim = to_timespec(from.mtime_ns);
  out.st_ctim = to_timespec(from.mtime_ns);
  return out;
}

void reply_error(fuse_req_t req, const Error& error) {
  fuse_reply_err(req, errno_of(error));
}

void reply_xattr(fuse_req_t req, std::string_view value, size_t size) {
  if (size == 0) {
    fuse_reply_xattr(req, value.size());
  } else if (size < value.size()) {
    fuse_reply_err(req, ERANGE);
  } else {
    fuse_reply_buf(req, value.data(), value.size());
  }
}

void refuse_write(fuse_req_t req) {
  fuse_reply_err(req, EROFS);
}

}  // namespace qcache

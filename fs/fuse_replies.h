#pragma once

#include <sys/stat.h>

#include <cerrno>
#include <cstddef>
#include <string_view>

#include "core/base/result.h"
#include "fs/fuse_api.h"
#include "fs/node_attributes.h"

namespace qcache {

// What the operations answer the kernel, in its terms. Who calls one of these has the right to answer the request.

/// For a request that names an inode which the kernel has given back, or one of the other kind: a protocol error.
inline constexpr int kUnknownNode = ESTALE;
// Also how much a Python reader fetches to see 30 bytes of a zip header: larger drags tensor data in.
inline constexpr size_t kBlockSize = 4096;

[[nodiscard]] struct ::stat to_stat(const NodeAttributes& from);

void reply_error(fuse_req_t req, const Error& error);
/// A value that the caller has `size` bytes for, or 0 where he asks for its size.
void reply_xattr(fuse_req_t req, std::string_view value, size_t size);
/// Nothing of the mount can be written.
void refuse_write(fuse_req_t req);

}  // namespace qcache

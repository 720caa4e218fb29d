#include <exception>
#include <span>

#include "core/base/log.h"
#include "fs/fuse_replies.h"
#include "fs/operations.h"

namespace qcache {
namespace {

/// Runs a handler of the Operations behind `req`. What it throws (out of memory, in practice) fails this request alone.
template <typename Handler>
void handle(fuse_req_t req, Handler&& handler) {
  try {
    handler(*static_cast<Operations*>(fuse_req_userdata(req)));
  } catch (const std::exception& e) {
    spdlog::error("a request failed: {}", e.what());
    fuse_reply_err(req, EIO);
  }
}

}  // namespace

const fuse_lowlevel_ops& Operations::table() {
  static const fuse_lowlevel_ops kOps = [] {
    fuse_lowlevel_ops t{};
    t.init = [](void* userdata, fuse_conn_info* connection) { static_cast<Operations*>(userdata)->init(connection); };
    t.lookup = [](fuse_req_t req, fuse_ino_t parent, const char* name) {
      handle(req, [&](Operations& o) { o.lookup(req, parent, name); });
    };
    t.forget = [](fuse_req_t req, fuse_ino_t id, uint64_t lookups) {
      static_cast<Operations*>(fuse_req_userdata(req))->forget(id, lookups);
      fuse_reply_none(req);
    };
    t.forget_multi = [](fuse_req_t req, size_t count, fuse_forget_data* forgets) {
      for (const fuse_forget_data& one : std::span(forgets, count)) {
        static_cast<Operations*>(fuse_req_userdata(req))->forget(one.ino, one.nlookup);
      }
      fuse_reply_none(req);
    };
    t.getattr = [](fuse_req_t req, fuse_ino_t id, fuse_file_info* fi) {
      handle(req, [&](Operations& o) { o.getattr(req, id, fi); });
    };
    t.opendir = [](fuse_req_t req, fuse_ino_t id, fuse_file_info* fi) {
      handle(req, [&](Operations& o) { o.opendir(req, id, fi); });
    };
    t.readdir = [](fuse_req_t req, fuse_ino_t, size_t size, off_t offset, fuse_file_info* fi) {
      handle(req, [&](Operations& o) { o.readdir(req, size, offset, fi); });
    };
    t.releasedir = [](fuse_req_t req, fuse_ino_t, fuse_file_info* fi) {
      handle(req, [&](Operations& o) { o.release(req, fi); });
    };
    t.open = [](fuse_req_t req, fuse_ino_t id, fuse_file_info* fi) {
      handle(req, [&](Operations& o) { o.open(req, id, fi); });
    };
    t.read = [](fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, fuse_file_info* fi) {
      handle(req, [&](Operations& o) { o.read(req, id, size, offset, fi); });
    };
    t.release = [](fuse_req_t req, fuse_ino_t, fuse_file_info* fi) {
      handle(req, [&](Operations& o) { o.release(req, fi); });
    };
    t.unlink = [](fuse_req_t req, fuse_ino_t parent, const char* name) {
      handle(req, [&](Operations& o) { o.remove(req, parent, name, false); });
    };
    t.rmdir = [](fuse_req_t req, fuse_ino_t parent, const char* name) {
      handle(req, [&](Operations& o) { o.remove(req, parent, name, true); });
    };
    t.statfs = [](fuse_req_t req, fuse_ino_t) { handle(req, [&](Operations& o) { o.statfs(req); }); };
    t.getxattr = [](fuse_req_t req, fuse_ino_t id, const char* name, size_t size) {
      handle(req, [&](Operations& o) { o.getxattr(req, id, name, size); });
    };
    t.listxattr = [](fuse_req_t req, fuse_ino_t id, size_t size) {
      handle(req, [&](Operations& o) { o.listxattr(req, id, size); });
    };
    t.setxattr = [](fuse_req_t req, fuse_ino_t id, const char* name, const char* value, size_t size, int) {
      handle(req, [&](Operations& o) { o.setxattr(req, id, name, value, size); });
    };
    t.removexattr = [](fuse_req_t req, fuse_ino_t, const char*) { fuse_reply_err(req, EPERM); };
    t.setattr = [](fuse_req_t req, fuse_ino_t, struct ::stat*, int, fuse_file_info*) { refuse_write(req); };
    t.mknod = [](fuse_req_t req, fuse_ino_t, const char*, mode_t, dev_t) { refuse_write(req); };
    t.mkdir = [](fuse_req_t req, fuse_ino_t, const char*, mode_t) { refuse_write(req); };
    t.symlink = [](fuse_req_t req, const char*, fuse_ino_t, const char*) { refuse_write(req); };
    t.link = [](fuse_req_t req, fuse_ino_t, fuse_ino_t, const char*) { refuse_write(req); };
    t.rename = [](fuse_req_t req, fuse_ino_t, const char*, fuse_ino_t, const char*, unsigned) { refuse_write(req); };
    t.create = [](fuse_req_t req, fuse_ino_t, const char*, mode_t, fuse_file_info*) { refuse_write(req); };
    return t;
  }();
  return kOps;
}

}  // namespace qcache

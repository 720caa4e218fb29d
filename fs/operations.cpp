#include "fs/operations.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include "core/base/log.h"
#include "core/base/page_buffer.h"
#include "fs/errno_of.h"
#include "fs/read_request.h"
#include "fs/request_timeout.h"

namespace qcache {
namespace {

// Also how much a Python reader fetches to see 30 bytes of a zip header: larger drags tensor data in.
constexpr blksize_t kBlockSize = 4096;
// The kernel stops sending cached reads (also those of sealed files without passthrough) when this many are unanswered.
constexpr unsigned kMaxBackground = 64;

timespec to_timespec(int64_t ns) {
  constexpr int64_t kNanosecondsPerSecond = 1'000'000'000;
  timespec out{};
  out.tv_sec = ns / kNanosecondsPerSecond;
  out.tv_nsec = ns % kNanosecondsPerSecond;
  return out;
}

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
  out.st_blksize = kBlockSize;
  out.st_atim = to_timespec(from.atime_ns);
  out.st_mtim = to_timespec(from.mtime_ns);
  out.st_ctim = to_timespec(from.mtime_ns);
  return out;
}

void reply_error(fuse_req_t req, const Error& error) {
  fuse_reply_err(req, errno_of(error));
}

// What the kernel sent names an inode it has given back, or a handle that is not open: a protocol error.
constexpr int kUnknownNode = ESTALE;

void reply_xattr(fuse_req_t req, std::string_view value, size_t size) {
  if (size == 0) {
    fuse_reply_xattr(req, value.size());
  } else if (size < value.size()) {
    fuse_reply_err(req, ERANGE);
  } else {
    fuse_reply_buf(req, value.data(), value.size());
  }
}

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

// Whose files a request for the node asks: those of a model, or none of a model's.
const std::string& gate_key(const Node& node) {
  return node.artifact.model.empty() ? node.path : node.artifact.model;
}

void refuse_write(fuse_req_t req) {
  fuse_reply_err(req, EROFS);
}

}  // namespace

Operations::Operations(Engine& engine, ControlFiles& control, bool passthrough, bool shared, unsigned max_read)
    : engine_(engine),
      control_(control),
      tree_(engine, control, shared),
      xattrs_(engine),
      passthrough_(passthrough, engine.store().env()),
      max_read_(max_read) {}

void Operations::init(fuse_conn_info* connection) {
  connection->max_background = kMaxBackground;
  connection->congestion_threshold = kMaxBackground * 3 / 4;
  connection->max_read = max_read_;
  const unsigned timeout = RequestTimeouts::read(engine_.store().env()).ask(connection);
  if (is_short_request_timeout(timeout)) {
    spdlog::warn(
        "the kernel ends this mount when one read takes longer than {} s: see the sysctls fs.fuse.max_request_timeout "
        "and fs.fuse.default_request_timeout (0 is no limit)",
        timeout);
  }
  passthrough_.negotiate(connection);
  control_.set_passthrough(passthrough_.state());
#ifdef FUSE_CAP_DIRECT_IO_ALLOW_MMAP
  // Without it a shared mapping of a file being made fails with ENODEV, and loaders map.
#if QCACHE_HAS_PASSTHROUGH
  fuse_set_feature_flag(connection, FUSE_CAP_DIRECT_IO_ALLOW_MMAP);
  fuse_unset_feature_flag(connection, FUSE_CAP_AUTO_INVAL_DATA);
#else
  connection->want |= connection->capable & FUSE_CAP_DIRECT_IO_ALLOW_MMAP;
#endif
#endif
}

void Operations::through_gate(fuse_req_t req, const std::string& model, Work work) {
  enter_gate(PendingRequest::start(req, later_), model, std::move(work));
}

void Operations::enter_gate(Request request, const std::string& model, Work work) {
  gate_.enter(std::move(request), model, engine_.root_that_may_stop(model), std::move(work));
}

void Operations::when_settled(const Request& request, const std::string& model, int64_t settles_in_ns, int attempt,
                              Work work) {
  if (attempt >= Engine::kSettleAttempts) {
    if (request->claim()) {
      reply_error(request->get(), still_being_written(model));
    }
    return;
  }
  later_.after(std::chrono::nanoseconds(settles_in_ns), [this, request, model, work = std::move(work)] {
    helpers_.run([this, request, model, work] { enter_gate(request, model, work); });
  });
}

void Operations::announce_reader(const ArtifactName& weights, int attempt) {
  int64_t settles_in_ns = 0;
  // The program will meet what is wrong when it opens them.
  (void)engine_.expect_reader_now(weights, settles_in_ns);
  if (settles_in_ns > 0 && attempt < Engine::kSettleAttempts) {
    later_.after(std::chrono::nanoseconds(settles_in_ns), [this, weights, attempt] {
      helpers_.run([this, weights, attempt] { announce_reader(weights, attempt + 1); });
    });
  }
}

void Operations::lookup(fuse_req_t req, uint64_t parent, const char* name) {
  const std::shared_ptr<const Node> folder = nodes_.find(parent);
  if (!folder) {
    fuse_reply_err(req, kUnknownNode);
    return;
  }
  const std::string model = folder->kind == NodeKind::kRoot ? name : gate_key(*folder);
  through_gate(req, model, [this, folder, name = std::string(name)](const Request& request) {
    auto found = tree_.lookup(*folder, name);
    if (!found) {
      const auto weights = Tree::foretold_load(*folder, name);
      if (weights && found.error().kind == ErrorKind::kNotFound) {
        announce_reader(*weights, 1);
      }
    }
    if (!request->claim()) {
      return;
    }
    if (!found) {
      reply_error(request->get(), found.error());
      return;
    }
    fuse_entry_param entry{};
    entry.attr = to_stat(found->attributes);
    entry.attr_timeout = found->attributes.valid_seconds;
    entry.entry_timeout = 0;
    entry.ino = nodes_.remember(std::move(found->node));
    if (fuse_reply_entry(request->get(), &entry) == -ENOENT) {
      nodes_.forget(entry.ino, 1);  // the caller was interrupted: the kernel did not count this lookup
    }
  });
}

void Operations::getattr(fuse_req_t req, uint64_t id, const fuse_file_info* fi) {
  const std::shared_ptr<const Node> node = nodes_.find(id);
  if (!node) {
    fuse_reply_err(req, kUnknownNode);
    return;
  }
  const auto reply = [](fuse_req_t to, const Result<NodeAttributes>& attributes) {
    if (!attributes) {
      reply_error(to, attributes.error());
      return;
    }
    const struct ::stat st = to_stat(*attributes);
    fuse_reply_attr(to, &st, attributes->valid_seconds);
  };
  if (node->kind != NodeKind::kArtifact) {
    auto attributes = tree_.attributes(*node);
    if (fi != nullptr && node->is_control_file() && attributes) {
      if (const auto handle = handles_.find(fi->fh)) {
        attributes->size_bytes = handle->text.size();
      }
    }
    reply(req, attributes);
    return;
  }
  through_gate(req, gate_key(*node), [this, node, reply](const Request& request) {
    auto attributes = tree_.attributes(*node);
    if (!attributes) {
      // Only who has the file open asks for a node that its name leads to no more; the kernel does not say which
      // handle.
      attributes = Tree::attributes_when_opened(*node);
    }
    if (request->claim()) {
      reply(request->get(), attributes);
    }
  });
}

void Operations::opendir(fuse_req_t req, uint64_t id, fuse_file_info* fi) {
  const std::shared_ptr<const Node> node = nodes_.find(id);
  if (!node) {
    fuse_reply_err(req, kUnknownNode);
    return;
  }
  through_gate(req, gate_key(*node), [this, node, reply = *fi](const Request& request) mutable {
    auto entries = tree_.list(*node);
    if (!request->claim()) {
      return;
    }
    if (!entries) {
      reply_error(request->get(), entries.error());
      return;
    }
    entries->insert(entries->begin(), {Tree::Entry{".", inode_of_path(node->path), true}, Tree::Entry{"..", 1, true}});
    Handle handle;
    handle.entries = std::move(*entries);
    reply.fh = handles_.add(std::move(handle));
    if (fuse_reply_open(request->get(), &reply) == -ENOENT) {
      handles_.take(reply.fh);
    }
  });
}

void Operations::readdir(fuse_req_t req, size_t size, off_t offset, const fuse_file_info* fi) {
  const std::shared_ptr<const Handle> handle = handles_.find(fi->fh);
  if (!handle) {
    fuse_reply_err(req, EBADF);
    return;
  }
  std::vector<char> buffer(size);
  size_t used = 0;
  for (auto index = static_cast<size_t>(offset); index < handle->entries.size(); ++index) {
    const Tree::Entry& entry = handle->entries[index];
    struct ::stat st {};
    st.st_ino = entry.inode;
    st.st_mode = entry.directory ? S_IFDIR : S_IFREG;
    const size_t need = fuse_add_direntry(req, buffer.data() + used, size - used, entry.name.c_str(), &st,
                                          static_cast<off_t>(index + 1));
    if (need > size - used) {
      break;
    }
    used += need;
  }
  fuse_reply_buf(req, buffer.data(), used);
}

void Operations::open(fuse_req_t req, uint64_t id, fuse_file_info* fi) {
  const std::shared_ptr<const Node> node = nodes_.find(id);
  if (!node) {
    fuse_reply_err(req, kUnknownNode);
    return;
  }
  // The kernel leaves truncating to us, also for files opened to be read; what we let pass empties its page cache.
  if ((fi->flags & O_ACCMODE) != O_RDONLY || (fi->flags & O_TRUNC) != 0) {
    refuse_write(req);
    return;
  }
  if (!node->is_control_file()) {
    through_gate(req, gate_key(*node),
                 [this, id, node, fi = *fi](const Request& request) { open_in_gate(request, id, node, fi, 1); });
    return;
  }
  Handle handle;
  handle.text = control_.render(node->kind);
  fi->direct_io = 1;
  fi->fh = handles_.add(std::move(handle));
  if (fuse_reply_open(req, fi) == -ENOENT) {
    handles_.take(fi->fh);  // the opener was interrupted, and no release will come
  }
}

void Operations::open_in_gate(const Request& request, uint64_t id, const std::shared_ptr<const Node>& node,
                              const fuse_file_info& fi, int attempt) {
  Handle handle;
  fuse_file_info reply = fi;
  int64_t settles_in_ns = 0;
  const Status opened = open_file(id, *node, handle, &reply, settles_in_ns);
  if (!opened && settles_in_ns > 0) {
    when_settled(request, gate_key(*node), settles_in_ns, attempt, [this, id, node, fi, attempt](const Request& again) {
      open_in_gate(again, id, node, fi, attempt + 1);
    });
    return;
  }
  if (!request->claim()) {
    return;
  }
  if (!opened) {
    reply_error(request->get(), opened.error());
    return;
  }
  handle.served_here = !(handle.sealed && handle.sealed->opened().mode == SealedMode::kPassthrough);
  reply.fh = handles_.add(std::move(handle));
  if (fuse_reply_open(request->get(), &reply) == -ENOENT) {
    handles_.take(reply.fh);  // the opener was interrupted, and no release will come
  }
}

Status Operations::open_file(uint64_t id, const Node& node, Handle& handle, fuse_file_info* fi,
                             int64_t& settles_in_ns) {
  if (node.kind == NodeKind::kGenerated) {
    QCACHE_TRY_ASSIGN(handle.text, tree_.generated_text(node));
    return {};
  }
  if (node.kind == NodeKind::kCompanion) {
    QCACHE_TRY_ASSIGN(SourceFile source, tree_.open_companion(node));
    QCACHE_TRY(hand_to_kernel(id, source.fd(), source.stat().device, handle, fi));
    if (passthrough_.state() != PassthroughState::kUntried) {
      control_.set_passthrough(passthrough_.state());
    }
    handle.source.emplace(std::move(source));
    return {};
  }
  return open_artifact(id, node, handle, fi, settles_in_ns);
}

Status Operations::hand_to_kernel(uint64_t id, int fd, uint64_t device, Handle& handle, fuse_file_info* fi) {
  const Passthrough::Opened& mode = handle.sealed.emplace(passthrough_.open(id, fd, device)).opened();
  if (mode.mode == SealedMode::kPageCache) {
    fi->keep_cache = 1;
    return {};
  }
  if ((fi->flags & O_DIRECT) != 0) {
    // The kernel opens the backing file with the opener's flags, and makes EIO of every failure. Programs go on without
    // O_DIRECT where they are told EINVAL.
    const auto direct = engine_.store().env().open(fmt::format("/proc/self/fd/{}", fd), O_RDONLY | O_DIRECT);
    if (!direct && direct.error().sys_errno == EINVAL) {
      return fail(ErrorKind::kInvalidArgument, "the filesystem below has no O_DIRECT");
    }
  }
#if QCACHE_HAS_PASSTHROUGH
  fi->backing_id = mode.backing_id;
#endif
  return {};
}

Status Operations::open_artifact(uint64_t id, const Node& node, Handle& handle, fuse_file_info* fi,
                                 int64_t& settles_in_ns) {
  // A source that changed since the lookup is ESTALE: the kernel then looks the name up again, and opens what it finds.
  QCACHE_TRY_ASSIGN(OpenArtifact opened, engine_.open_now(node.artifact, &node.recipe, settles_in_ns));
  if (!node.sealed) {
    fi->direct_io = 1;
  } else if (opened->sealed_fd() < 0) {
    return fail(ErrorKind::kSourceChanged, node.path + " is no longer complete");
  } else {
    QCACHE_TRY_ASSIGN(const FileStat stat, engine_.store().env().stat(opened->sealed_fd()));
    const Status handed = hand_to_kernel(id, opened->sealed_fd(), stat.device, handle, fi);
    control_.set_passthrough(passthrough_.state_on(stat.device));
    QCACHE_TRY(handed);
  }
  handle.artifact.emplace(std::move(opened));
  return {};
}

void Operations::read(fuse_req_t req, uint64_t id, size_t size, off_t offset, const fuse_file_info* fi) {
  const std::shared_ptr<const Handle> handle = handles_.find(fi->fh);
  if (!handle) {
    fuse_reply_err(req, EBADF);
    return;
  }
  if (handle->artifact) {
    // Direct reads carry the owner of their locks, reads for the page cache do not; those of more than a page include
    // pages that nobody has touched.
    const bool speculative = fi->lock_owner == 0 && size > static_cast<size_t>(kBlockSize);
    ReadRequest::start(req, **handle->artifact, ByteRange{static_cast<uint64_t>(offset), size},
                       speculative ? ReadIntent::kSpeculative : ReadIntent::kWanted);
    return;
  }
  if (handle->source) {
    const std::shared_ptr<const Node> node = nodes_.find(id);
    const std::string model = node ? node->artifact.model : std::string();
    through_gate(req, model, [this, handle, size, offset](const Request& request) {
      PageBuffer buffer(size);
      const auto got = engine_.store().env().read_at(handle->source->fd(), buffer, static_cast<uint64_t>(offset));
      if (!request->claim()) {
        return;
      }
      if (got) {
        fuse_reply_buf(request->get(), reinterpret_cast<const char*>(buffer.data()), *got);
      } else {
        reply_error(request->get(), got.error());
      }
    });
    return;
  }
  const std::string_view text = handle->text;
  const std::string_view part = text.substr(std::min(static_cast<size_t>(offset), text.size()), size);
  fuse_reply_buf(req, part.data(), part.size());
}

void Operations::release(fuse_req_t req, const fuse_file_info* fi) {
  auto handle = handles_.take(fi->fh);
  fuse_reply_err(req, 0);  // first: closing a file that was removed meanwhile frees its blocks, which may take seconds
  if (handle && handle->source) {
    helpers_.run([closed = std::move(handle)] {});  // closing asks some filesystems, too
  }
}

void Operations::remove(fuse_req_t req, uint64_t parent, const char* name, bool folder) {
  const std::shared_ptr<const Node> node = nodes_.find(parent);
  if (!node) {
    fuse_reply_err(req, kUnknownNode);
    return;
  }
  const std::string model = node->kind == NodeKind::kRoot ? name : gate_key(*node);
  through_gate(req, model, [this, node, name = std::string(name), folder](const Request& request) {
    remove_node(request, *node, name, folder);
  });
}

void Operations::remove_node(const Request& request, const Node& parent, const std::string& name, bool is_folder) {
  const auto found = tree_.lookup(parent, name);
  int error = found ? 0 : errno_of(found.error());
  if (found && found->node.is_directory() != is_folder) {
    error = is_folder ? ENOTDIR : EISDIR;
  }
  if (error == 0) {
    if (const Status removed = tree_.remove(found->node); !removed) {
      spdlog::warn("cannot remove {}: {}", found->node.path, removed.error().message);
      error = errno_of(removed.error());
    } else {
      nodes_.retire(found->node.key);
    }
  }
  if (request->claim()) {
    fuse_reply_err(request->get(), error);
  }
}

void Operations::statfs(fuse_req_t req) {
  const auto space = engine_.store().env().space(engine_.store().directory().path());
  if (!space) {
    reply_error(req, space.error());
    return;
  }
  struct ::statvfs st {};
  st.f_bsize = kBlockSize;
  st.f_frsize = kBlockSize;
  st.f_blocks = space->total_bytes / kBlockSize;
  st.f_bfree = space->available_bytes / kBlockSize;
  st.f_bavail = st.f_bfree;
  st.f_namemax = 255;
  fuse_reply_statfs(req, &st);
}

void Operations::getxattr(fuse_req_t req, uint64_t id, const char* name, size_t size) {
  const std::shared_ptr<const Node> node = nodes_.find(id);
  if (!node) {
    fuse_reply_err(req, kUnknownNode);
    return;
  }
  if (!Xattrs::is_ours(name)) {
    fuse_reply_err(req, ENODATA);  // ls asks every file for security labels and ACLs: answered without work
    return;
  }
  through_gate(req, gate_key(*node), [this, node, name = std::string(name), size](const Request& request) {
    const auto value = xattrs_.get(*node, name);
    if (!request->claim()) {
      return;
    }
    if (!value) {
      reply_error(request->get(), value.error());
    } else if (!*value) {
      fuse_reply_err(request->get(), ENODATA);
    } else {
      reply_xattr(request->get(), **value, size);
    }
  });
}

void Operations::listxattr(fuse_req_t req, uint64_t id, size_t size) {
  const std::shared_ptr<const Node> node = nodes_.find(id);
  if (!node) {
    fuse_reply_err(req, kUnknownNode);
    return;
  }
  through_gate(req, gate_key(*node), [this, node, size](const Request& request) {
    const auto names = xattrs_.list(*node);
    if (!request->claim()) {
      return;
    }
    if (!names) {
      reply_error(request->get(), names.error());
      return;
    }
    std::string joined;
    for (const std::string& name : *names) {
      joined += name;
      joined += '\0';
    }
    reply_xattr(request->get(), joined, size);
  });
}

void Operations::setxattr(fuse_req_t req, uint64_t id, const char* name, const char* value, size_t size) {
  const std::shared_ptr<const Node> node = nodes_.find(id);
  if (!node) {
    fuse_reply_err(req, kUnknownNode);
    return;
  }
  through_gate(req, gate_key(*node),
               [this, node, name = std::string(name), value = std::string(value, size)](const Request& request) {
                 set_in_gate(request, node, name, value, 1);
               });
}

void Operations::set_in_gate(const Request& request, const std::shared_ptr<const Node>& node, const std::string& name,
                             const std::string& value, int attempt) {
  int64_t settles_in_ns = 0;
  const Status set = xattrs_.set(*node, name, value, settles_in_ns);
  if (!set && settles_in_ns > 0) {
    when_settled(request, gate_key(*node), settles_in_ns, attempt,
                 [this, node, name, value, attempt](const Request& again) {
                   set_in_gate(again, node, name, value, attempt + 1);
                 });
  } else if (request->claim()) {
    fuse_reply_err(request->get(), set ? 0 : errno_of(set.error()));
  }
}

void Operations::stop() {
  later_.stop();
  helpers_.stop();
}

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

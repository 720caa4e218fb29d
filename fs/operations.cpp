#include "fs/operations.h"

#include <utility>

#include "core/base/log.h"
#include "fs/errno_of.h"
#include "fs/fuse_replies.h"
#include "fs/request_timeout.h"

namespace qcache {
namespace {

// The kernel stops sending cached reads (also those of sealed files without passthrough) when this many are unanswered.
constexpr unsigned kMaxBackground = 64;

}  // namespace

Operations::Operations(Engine& engine, ControlFiles& control, bool passthrough, bool shared, unsigned max_read)
    : engine_(engine),
      control_(control),
      context_(engine, control, shared),
      nodes_(std::make_shared<const RootNode>(context_)),
      passthrough_(passthrough, engine.env()),
      max_read_(max_read) {}

void Operations::init(fuse_conn_info* connection) {
  connection->max_background = kMaxBackground;
  connection->congestion_threshold = kMaxBackground * 3 / 4;
  connection->max_read = max_read_;
  const unsigned timeout = RequestTimeouts::read(engine_.env()).ask(connection);
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

void Operations::through_gate(fuse_req_t req, std::string_view model, Work work) {
  enter_gate(PendingRequest::start(req, later_), std::string(model), std::move(work));
}

void Operations::enter_gate(Request request, const std::string& model, Work work) {
  gate_.enter(std::move(request), model, engine_.root_that_may_stop(model), std::move(work));
}

void Operations::when_settled(const Request& request, std::string_view model_name, int64_t settles_in_ns, int attempt,
                              Work work) {
  std::string model(model_name);
  if (attempt >= Engine::kSettleAttempts) {
    if (request->claim()) {
      reply_error(request->get(), still_being_written(model));
    }
    return;
  }
  later_.after(std::chrono::nanoseconds(settles_in_ns),
               [this, request, model = std::move(model), work = std::move(work)] {
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
  const auto folder = find<FolderNode>(req, parent);
  if (!folder) {
    return;
  }
  through_gate(req, folder->model_of(name), [this, folder, name = std::string(name)](const Request& request) {
    auto found = folder->lookup(name);
    if (!found && found.error().kind == ErrorKind::kNotFound) {
      if (const auto weights = folder->foretold_load(name)) {
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
  const auto node = find<Node>(req, id);
  if (!node) {
    return;
  }
  const auto reply = [](fuse_req_t to, const NodeAttributes& attributes) {
    const struct ::stat st = to_stat(attributes);
    fuse_reply_attr(to, &st, attributes.valid_seconds);
  };
  if (node->attributes_ask_files()) {
    through_gate(req, node->model(), [node, reply](const Request& request) {
      const NodeAttributes attributes = node->attributes();
      if (request->claim()) {
        reply(request->get(), attributes);
      }
    });
    return;
  }
  NodeAttributes attributes = node->attributes();
  const auto handle = fi == nullptr ? nullptr : handles_.find(fi->fh);
  if (handle && handle->file && handle->file->text() != nullptr) {
    attributes.size_bytes = handle->file->text()->size();
  }
  reply(req, attributes);
}

void Operations::remove(fuse_req_t req, uint64_t parent, const char* name, bool folder) {
  const auto node = find<FolderNode>(req, parent);
  if (!node) {
    return;
  }
  through_gate(req, node->model_of(name), [this, node, name = std::string(name), folder](const Request& request) {
    remove_child(request, *node, name, folder);
  });
}

void Operations::remove_child(const Request& request, const FolderNode& parent, const std::string& name,
                              bool is_folder) {
  const auto found = parent.lookup(name);
  int error = found ? 0 : errno_of(found.error());
  if (found && S_ISDIR(found->attributes.mode) != is_folder) {
    error = is_folder ? ENOTDIR : EISDIR;
  }
  if (error == 0) {
    if (const Status removed = found->node->remove(); !removed) {
      spdlog::warn("cannot remove {}: {}", found->node->path(), removed.error().message);
      error = errno_of(removed.error());
    } else {
      nodes_.retire(found->node->key());
    }
  }
  if (request->claim()) {
    fuse_reply_err(request->get(), error);
  }
}

void Operations::statfs(fuse_req_t req) {
  const auto space = engine_.space();
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
  const auto node = find<Node>(req, id);
  if (!node) {
    return;
  }
  if (!is_own_xattr(name)) {
    fuse_reply_err(req, ENODATA);  // ls asks every file for security labels and ACLs: answered without work
    return;
  }
  through_gate(req, node->model(), [node, name = std::string(name), size](const Request& request) {
    const auto xattrs = node->xattrs();
    if (!request->claim()) {
      return;
    }
    if (!xattrs) {
      reply_error(request->get(), xattrs.error());
    } else if (const std::string* const value = xattrs->find(name)) {
      reply_xattr(request->get(), *value, size);
    } else {
      fuse_reply_err(request->get(), ENODATA);
    }
  });
}

void Operations::listxattr(fuse_req_t req, uint64_t id, size_t size) {
  const auto node = find<Node>(req, id);
  if (!node) {
    return;
  }
  through_gate(req, node->model(), [node, size](const Request& request) {
    const auto xattrs = node->xattrs();
    if (!request->claim()) {
      return;
    }
    if (xattrs) {
      reply_xattr(request->get(), xattrs->names(), size);
    } else {
      reply_error(request->get(), xattrs.error());
    }
  });
}

void Operations::setxattr(fuse_req_t req, uint64_t id, const char* name, const char* value, size_t size) {
  const auto node = find<Node>(req, id);
  if (!node) {
    return;
  }
  through_gate(req, node->model(),
               [this, node, name = std::string(name), value = std::string(value, size)](const Request& request) {
                 set_in_gate(request, node, name, value, 1);
               });
}

void Operations::set_in_gate(const Request& request, const std::shared_ptr<const Node>& node, const std::string& name,
                             const std::string& value, int attempt) {
  int64_t settles_in_ns = 0;
  const Status set = node->set_xattr(name, value, settles_in_ns);
  if (!set && settles_in_ns > 0) {
    when_settled(request, node->model(), settles_in_ns, attempt,
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

}  // namespace qcache

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include <fmt/format.h>

#include "core/base/page_buffer.h"
#include "fs/fuse_replies.h"
#include "fs/operations.h"
#include "fs/read_request.h"

namespace qcache {

void Operations::opendir(fuse_req_t req, uint64_t id, fuse_file_info* fi) {
  const auto folder = find<FolderNode>(req, id);
  if (!folder) {
    return;
  }
  through_gate(req, folder->model(), [this, folder, reply = *fi](const Request& request) mutable {
    auto entries = folder->list();
    if (!request->claim()) {
      return;
    }
    if (!entries) {
      reply_error(request->get(), entries.error());
      return;
    }
    entries->insert(entries->begin(), {FolderEntry{".", folder->inode(), true}, FolderEntry{"..", 1, true}});
    Handle handle;
    handle.entries = std::move(*entries);
    reply_open(request->get(), std::move(handle), reply);
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
    const FolderEntry& entry = handle->entries[index];
    struct ::stat st {};
    st.st_ino = entry.inode;
    st.st_mode = entry.folder ? S_IFDIR : S_IFREG;
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
  const auto file = find<FileNode>(req, id);
  if (!file) {
    return;
  }
  // The kernel leaves truncating to us, also for files opened to be read; what we let pass empties its page cache.
  if ((fi->flags & O_ACCMODE) != O_RDONLY || (fi->flags & O_TRUNC) != 0) {
    refuse_write(req);
    return;
  }
  through_gate(req, file->model(),
               [this, id, file, fi = *fi](const Request& request) { open_in_gate(request, id, file, fi, 1, false); });
}

void Operations::open_in_gate(const Request& request, uint64_t id, const std::shared_ptr<const FileNode>& file,
                              const fuse_file_info& fi, int attempt, bool waited) {
  if (const auto weights = file->foretold_load()) {
    announce_reader(*weights, 1);
  }
  const OpenAdvice advice = file->advice();
  if (advice.what == OpenAdvice::What::kWait) {
    later_.after(advice.ask_again_in, [this, request, id, file, fi, attempt] {
      helpers_.run([this, request, id, file, fi, attempt] {
        enter_gate(request, std::string(file->model()), [this, id, file, fi, attempt](const Request& again) {
          open_in_gate(again, id, file, fi, attempt, true);
        });
      });
    });
    return;
  }
  if (waited && advice.what == OpenAdvice::What::kLookAgain) {
    // The kernel does so once. Not for who opens what it has open already: that would look at no name.
    if (request->claim()) {
      fuse_reply_err(request->get(), ESTALE);
    }
    return;
  }
  Handle handle;
  fuse_file_info reply = fi;
  int64_t settles_in_ns = 0;
  const Status opened = open_file(id, *file, handle, &reply, settles_in_ns);
  if (!opened && settles_in_ns > 0) {
    when_settled(request, file->model(), settles_in_ns, attempt,
                 [this, id, file, fi, attempt, waited](const Request& again) {
                   open_in_gate(again, id, file, fi, attempt + 1, waited);
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
  const bool passed_through = handle.hold && handle.hold->opened().mode == SealedMode::kPassthrough;
  // What tells of the mount alone ends with it.
  handle.served_here = !passed_through && !file->model().empty();
  reply_open(request->get(), std::move(handle), reply);
}

void Operations::reply_open(fuse_req_t req, Handle handle, fuse_file_info& reply) {
  reply.fh = handles_.add(std::move(handle));
  if (fuse_reply_open(req, &reply) == -ENOENT) {
    handles_.take(reply.fh);  // the opener was interrupted, and no release will come
  }
}

Status Operations::open_file(uint64_t id, const FileNode& file, Handle& handle, fuse_file_info* fi,
                             int64_t& settles_in_ns) {
  QCACHE_TRY_ASSIGN(OpenFile opened, file.open(settles_in_ns));
  const OpenFile& kept = handle.file.emplace(std::move(opened));
  switch (kept.read_through) {
    case ReadThrough::kDaemon:
      fi->direct_io = 1;
      return {};
    case ReadThrough::kPageCache:
      return {};
    case ReadThrough::kBackingFile:
      return hand_to_kernel(id, kept, handle, fi);
  }
  return {};
}

Status Operations::hand_to_kernel(uint64_t id, const OpenFile& file, Handle& handle, fuse_file_info* fi) {
  const SourceFile* const source = file.source();
  const int fd = source != nullptr ? source->fd() : (*file.artifact())->complete_fd();
  QCACHE_TRY_ASSIGN(const FileStat stat, engine_.env().stat(fd));
  const Passthrough::Opened& mode = handle.hold.emplace(passthrough_.open(id, fd, stat.device)).opened();
  // Whether files of models are handed over tells nothing of those in the cache directory, but where none is.
  const PassthroughState state = source != nullptr ? passthrough_.state() : passthrough_.state_on(stat.device);
  if (state != PassthroughState::kUntried) {
    control_.set_passthrough(state);
  }
  if (mode.mode == SealedMode::kPageCache) {
    fi->keep_cache = 1;
    return {};
  }
  if ((fi->flags & O_DIRECT) != 0) {
    // The kernel opens the backing file with the opener's flags, and makes EIO of every failure. Programs go on without
    // O_DIRECT where they are told EINVAL.
    const auto direct = engine_.env().open(fmt::format("/proc/self/fd/{}", fd), O_RDONLY | O_DIRECT);
    if (!direct && direct.error().sys_errno == EINVAL) {
      return fail(ErrorKind::kInvalidArgument, "the filesystem below has no O_DIRECT");
    }
  }
#if QCACHE_HAS_PASSTHROUGH
  fi->backing_id = mode.backing_id;
#endif
  return {};
}

void Operations::read(fuse_req_t req, uint64_t id, size_t size, off_t offset, const fuse_file_info* fi) {
  const std::shared_ptr<const Handle> handle = handles_.find(fi->fh);
  if (!handle || !handle->file) {
    fuse_reply_err(req, EBADF);
    return;
  }
  const OpenFile& file = *handle->file;
  if (const OpenArtifact* const artifact = file.artifact()) {
    // Direct reads carry the owner of their locks, reads for the page cache do not; those of more than a page include
    // pages that nobody has touched.
    const bool speculative = fi->lock_owner == 0 && size > kBlockSize;
    ReadRequest::start(req, **artifact, ByteRange{static_cast<uint64_t>(offset), size},
                       speculative ? ReadIntent::kSpeculative : ReadIntent::kWanted);
    return;
  }
  if (file.source() != nullptr) {
    const std::shared_ptr<const Node> node = nodes_.find(id);
    through_gate(req, node ? node->model() : "", [this, handle, size, offset](const Request& request) {
      PageBuffer buffer(size);
      const auto got = engine_.env().read_at(handle->file->source()->fd(), buffer, static_cast<uint64_t>(offset));
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
  const std::string_view text = *file.text();
  const std::string_view part = text.substr(std::min(static_cast<size_t>(offset), text.size()), size);
  fuse_reply_buf(req, part.data(), part.size());
}

void Operations::release(fuse_req_t req, const fuse_file_info* fi) {
  auto handle = handles_.take(fi->fh);
  fuse_reply_err(req, 0);  // first: closing a file that was removed meanwhile frees its blocks, which may take seconds
  if (handle && handle->file && handle->file->source() != nullptr) {
    helpers_.run([closed = std::move(handle)] {});  // closing asks some filesystems, too
  }
}

}  // namespace qcache

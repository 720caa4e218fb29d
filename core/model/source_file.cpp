#include "core/model/source_file.h"

#include <fcntl.h>

#include <span>

#include <fmt/format.h>

namespace qcache {
namespace {

// The check is made on what was opened, not on the name: the name may lead elsewhere a moment later.
Status check_inside(Env& env, const std::string& path, const FileStat& opened, const HubLocation& hub) {
  QCACHE_TRY_ASSIGN(const std::string target, env.real_path(path));
  if (!target.starts_with(hub.repo_folder + '/')) {
    return fail(ErrorKind::kInvalidModel,
                fmt::format("{} is a link to {}, which is outside {}: qcache does not follow it", path, target,
                            hub.repo_folder));
  }
  QCACHE_TRY_ASSIGN(const FileStat stat, env.stat(target));
  if (stat.device != opened.device || stat.inode != opened.inode) {
    return fail(ErrorKind::kSourceChanged, path + " was replaced while it was opened");
  }
  return {};
}

}  // namespace

Result<SourceFile> SourceFile::open(Env& env, const std::string& path, const std::optional<HubLocation>& hub) {
  QCACHE_TRY_ASSIGN(UniqueFd fd, env.open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY));
  QCACHE_TRY_ASSIGN(const FileStat stat, env.stat(fd.get()));
  if (!stat.is_regular()) {
    return fail(ErrorKind::kInvalidModel, path + " is not a regular file");
  }
  if (hub) {
    QCACHE_TRY(check_inside(env, path, stat, *hub));
  }
  return SourceFile(path, std::move(fd), stat);
}

Result<SourceFileIdentity> SourceFile::finish(Env& env, const Sha256Digest& digest) const {
  SourceFileIdentity identity{path_, stat_.inode, stat_.size_bytes, stat_.mtime_ns, stat_.ctime_ns, digest};
  QCACHE_TRY_ASSIGN(const FileStat now, env.stat(fd_.get()));
  if (!identity.matches(now)) {
    return fail(ErrorKind::kSourceChanged, path_ + " changed while it was read");
  }
  return identity;
}

Result<SmallFile> read_small_file(Env& env, const std::string& path, uint64_t max_bytes,
                                  const std::optional<HubLocation>& hub) {
  QCACHE_TRY_ASSIGN(const SourceFile file, SourceFile::open(env, path, hub));
  const uint64_t size = file.stat().size_bytes;
  if (size > max_bytes) {
    return fail(ErrorKind::kInvalidModel,
                fmt::format("{} has {} bytes, more than the {} that qcache reads", path, size, max_bytes));
  }
  SmallFile out;
  out.stat = file.stat();
  out.content.resize(size);
  const auto bytes = std::as_writable_bytes(std::span(out.content));
  QCACHE_TRY_ASSIGN(const size_t done, env.read_at(file.fd(), bytes, 0));
  if (done != size) {
    return fail(ErrorKind::kSourceChanged, path + " became shorter while it was read");
  }
  QCACHE_TRY_ASSIGN(out.identity, file.finish(env, sha256(bytes)));
  return out;
}

}  // namespace qcache

#include "core/store/named_file.h"

#include <fcntl.h>

#include <cerrno>

#include <fmt/format.h>

namespace qcache {
namespace {

// What open() says of a link, of a pipe or socket that nobody reads, and of a folder that is opened for writing.
bool tells_of_another_kind(const Error& error) {
  return error.sys_errno == ELOOP || error.sys_errno == ENXIO || error.sys_errno == EISDIR;
}

// Of the link itself, where the name is one.
Result<std::optional<FileStat>> stat_of_name(Env& env, const std::string& path) {
  const auto name = env.open(path, O_PATH | O_NOFOLLOW);
  if (!name.has_value()) {
    return name.error().kind == ErrorKind::kNotFound ? Result<std::optional<FileStat>>(std::nullopt)
                                                     : fail(name.error());
  }
  QCACHE_TRY_ASSIGN(const FileStat stat, env.stat(name->get()));
  return std::optional(stat);
}

}  // namespace

Result<UniqueFd> open_named(Env& env, const std::string& path, int flags, mode_t mode) {
  auto fd = env.open(path, flags | O_NOFOLLOW | O_NONBLOCK, mode);
  if (fd.has_value()) {
    QCACHE_TRY_ASSIGN(const FileStat stat, env.stat(fd->get()));
    if (stat.is_regular()) {
      return fd;
    }
  } else if (!tells_of_another_kind(fd.error())) {
    return fd;
  }
  return fail((flags & O_CREAT) != 0 ? ErrorKind::kCorrupt : ErrorKind::kNotFound,
              fmt::format("{} is not a regular file, as those of qcache are: move it away", path));
}

Result<UniqueFd> begin_named(Env& env, const std::string& path, mode_t mode) {
  QCACHE_TRY(remove_if_there(env, path));
  return env.open(path, O_RDWR | O_CREAT | O_EXCL, mode);
}

Result<std::optional<FileStat>> stat_if_there(Env& env, const std::string& path) {
  QCACHE_TRY_ASSIGN(const auto stat, stat_of_name(env, path));
  return stat.has_value() && stat->is_regular() ? stat : std::nullopt;
}

Result<bool> is_taken_by_others(Env& env, const std::string& path) {
  QCACHE_TRY_ASSIGN(const auto stat, stat_of_name(env, path));
  return stat.has_value() && !stat->is_regular();
}

Status remove_if_there(Env& env, const std::string& path) {
  Status removed = env.remove(path);
  if (!removed.has_value() && (removed.error().kind == ErrorKind::kNotFound || removed.error().sys_errno == EISDIR)) {
    return {};
  }
  return removed;
}

Result<bool> leads_to(Env& env, const std::string& path, int fd) {
  QCACHE_TRY_ASSIGN(const auto named, stat_if_there(env, path));
  if (!named.has_value()) {
    return false;
  }
  QCACHE_TRY_ASSIGN(const FileStat held, env.stat(fd));
  return named->device == held.device && named->inode == held.inode;
}

}  // namespace qcache

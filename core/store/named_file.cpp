#include "core/store/named_file.h"

#include <cerrno>

namespace qcache {

Result<std::optional<FileStat>> stat_if_there(Env& env, const std::string& path) {
  auto stat = env.stat(path);
  if (stat.has_value()) {
    return stat->is_directory() ? std::optional<FileStat>() : std::optional(*stat);
  }
  if (stat.error().kind == ErrorKind::kNotFound) {
    return std::optional<FileStat>();
  }
  return fail(std::move(stat).error());
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

#include "tools/mount_attributes.h"

#include <linux/limits.h>
#include <sys/xattr.h>

#include <cerrno>

#include <fmt/format.h>

namespace qcache {
namespace {

std::string full_name(std::string_view name) {
  return fmt::format("user.qcache.{}", name);
}

}  // namespace

Result<std::optional<std::string>> get_attribute(const std::string& path, std::string_view name) {
  std::string value(XATTR_SIZE_MAX, '\0');
  const ssize_t size = ::getxattr(path.c_str(), full_name(name).c_str(), value.data(), value.size());
  if (size < 0 && (errno == ENODATA || errno == ENOTSUP)) {
    return std::optional<std::string>();
  }
  if (size < 0) {
    return fail(system_error(errno, fmt::format("cannot ask {} for its {}", path, name)));
  }
  value.resize(static_cast<size_t>(size));
  return std::optional(std::move(value));
}

std::string attribute_or_empty(const std::string& path, std::string_view name) {
  return get_attribute(path, name).value_or(std::nullopt).value_or("");
}

Status set_attribute(const std::string& path, std::string_view name, bool on) {
  if (::setxattr(path.c_str(), full_name(name).c_str(), on ? "1" : "0", 1, 0) != 0) {
    return fail(system_error(errno, fmt::format("cannot set {} of {}", name, path)));
  }
  return {};
}

}  // namespace qcache

#include "fs/xattrs.h"

#include <algorithm>

#include <fmt/format.h>

namespace qcache {
namespace {

constexpr std::string_view kPrefix = "user.qcache.";

}  // namespace

bool is_own_xattr(std::string_view name) {
  return name.starts_with(kPrefix);
}

void Xattrs::add(std::string_view name, std::string value) {
  values_.emplace_back(fmt::format("{}{}", kPrefix, name), std::move(value));
}

const std::string* Xattrs::find(std::string_view name) const {
  const auto found = std::ranges::find(values_, name, &std::pair<std::string, std::string>::first);
  return found == values_.end() ? nullptr : &found->second;
}

std::string Xattrs::names() const {
  std::string joined;
  for (const auto& [name, value] : values_) {
    joined += name;
    joined += '\0';
  }
  return joined;
}

}  // namespace qcache

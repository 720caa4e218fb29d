#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace qcache {

/// Whether an extended attribute is one of the mount's own, `user.qcache.*`, on any node.
[[nodiscard]] bool is_own_xattr(std::string_view name);

/// The extended attributes that a node has, with their values: what stat cannot say. docs/SEMANTICS.md lists them.
/// A value; names are full ones but where one is added.
class Xattrs {
 public:
  /// `name` without `user.qcache.`.
  void add(std::string_view name, std::string value);

  /// Null where the node does not have it.
  [[nodiscard]] const std::string* find(std::string_view name) const;
  /// As listxattr(2) gives them: each name with a zero byte behind it.
  [[nodiscard]] std::string names() const;

 private:
  std::vector<std::pair<std::string, std::string>> values_;
};

}  // namespace qcache

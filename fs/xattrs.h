#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/engine/engine.h"
#include "fs/node.h"

namespace qcache {

/// The extended attributes `user.qcache.*` of the mount's files and model folders: what stat cannot say, and the two
/// controls (pinned, warm). docs/SEMANTICS.md lists them. Thread-safe.
class Xattrs {
 public:
  explicit Xattrs(Engine& engine) : engine_(engine) {}

  /// Whether the name is one of them, on any node.
  [[nodiscard]] static bool is_ours(std::string_view name);

  /// The names a node has now.
  [[nodiscard]] Result<std::vector<std::string>> list(const Node& node) const;
  /// The value of `name`; none where the node does not have it.
  [[nodiscard]] Result<std::optional<std::string>> get(const Node& node, std::string_view name) const;
  /// Sets a control: user.qcache.pinned or user.qcache.warm, to 1 or 0 (true, false, yes, no).
  /// `settles_in_ns` as of Engine::open_now().
  [[nodiscard]] Status set(const Node& node, std::string_view name, std::string_view value,
                           int64_t& settles_in_ns) const;

 private:
  using Values = std::vector<std::pair<std::string, std::string>>;
  [[nodiscard]] Result<Values> values(const Node& node) const;

  Engine& engine_;
};

}  // namespace qcache

#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "core/base/result.h"

namespace qcache {

/// The value of the extended attribute `user.qcache.<name>` of a file or folder of a mount; none where it has none.
/// docs/SEMANTICS.md lists them.
Result<std::optional<std::string>> get_attribute(const std::string& path, std::string_view name);
/// The same, empty where there is none or it cannot be read.
[[nodiscard]] std::string attribute_or_empty(const std::string& path, std::string_view name);
/// Sets a control: "warm" or "pinned".
Status set_attribute(const std::string& path, std::string_view name, bool on);

}  // namespace qcache

#pragma once

#include <string>

namespace qcache {

/// The libfuse that this process runs with, such as "3.18.3".
[[nodiscard]] std::string libfuse_version();

/// Whether qcache was built with a libfuse that has passthrough (3.17.4).
[[nodiscard]] bool built_with_passthrough();

}  // namespace qcache

#pragma once

#include <cstdint>
#include <string>

#include "tools/command.h"

namespace qcache {

/// Where a person sits at the terminal and `bytes` are more than the context lets go without a question: asks
/// `question` (without its question mark), and whether the answer is yes. All others are not asked, and it is.
[[nodiscard]] bool confirm(CommandContext& context, const std::string& question, uint64_t bytes);

}  // namespace qcache

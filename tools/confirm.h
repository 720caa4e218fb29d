#pragma once

#include <cstdint>
#include <string>

#include "tools/command.h"

namespace qcache {

/// How much may be dropped without a question.
inline constexpr uint64_t kAskAboveBytes = uint64_t{10} << 30U;

/// Where a person sits at the terminal and `bytes` are more than kAskAboveBytes: asks `question` (without its question
/// mark), and whether the answer is yes. All others are not asked, and it is.
[[nodiscard]] bool confirm(CommandContext& context, const std::string& question, uint64_t bytes);

}  // namespace qcache

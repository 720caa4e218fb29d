#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/base/result.h"

namespace qcache {

/// "90s", "15m", "12h", "7d", "2w" -> seconds. A number without a unit is refused: users of other caches
/// mean days by it, users of timeout(1) mean seconds.
Result<std::chrono::seconds> parse_duration(std::string_view text);

/// "500M", "20G", "1.5T", "1048576" -> bytes. K, M, G, T (with or without "iB") are powers of 1024, as in
/// ls -h; "KB", "MB" and so on are powers of 1000.
Result<uint64_t> parse_size(std::string_view text);

/// 1536 -> "1.5K", 83 MiB -> "83M": at most three significant figures, as ls -h prints.
std::string format_size(uint64_t bytes);

/// 90 s -> "1m30s", 0 -> "0s"; the two largest units.
std::string format_duration(std::chrono::seconds duration);

/// "2026-11-24T06:00:00Z" for nanoseconds since the epoch.
std::string format_time(int64_t ns_since_epoch);

}  // namespace qcache

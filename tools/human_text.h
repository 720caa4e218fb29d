#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace qcache {

// How the commands write things for people; --json output uses none of these.

/// `text` with everything that could spoil a terminal (control characters, bytes that are not UTF-8) as '?'. Names of
/// models come from strangers.
[[nodiscard]] std::string printable(std::string_view text);

/// How many columns `text` takes, one per code point.
[[nodiscard]] size_t display_width(std::string_view text);

/// "3h ago": the largest unit only. A time in the future, as after a correction of the clock, is "just now".
[[nodiscard]] std::string format_ago(int64_t then_ns, int64_t now_ns);

/// 0.4242 -> "42%". Rounds down, so that "100%" means all of it.
[[nodiscard]] std::string format_percent(double share);

/// "213 MB/s": millions of bytes, as disks and networks are sold.
[[nodiscard]] std::string format_rate(double bytes_per_second);

/// 1 -> "1 file", 2 -> "2 files".
[[nodiscard]] std::string count_of(uint64_t count, std::string_view noun);

}  // namespace qcache

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

/// "203M/s": in the units of format_size().
[[nodiscard]] std::string format_rate(double bytes_per_second);

/// `text` with line breaks between words, so that no line is wider than `columns`, but for words that are by
/// themselves. All lines but the first begin with `indent` blanks, which do not count. Line breaks in `text` stay, and
/// so do lines that begin with blanks.
[[nodiscard]] std::string filled(std::string_view text, size_t columns, size_t indent = 0);

/// 1 -> "1 file", 2 -> "2 files".
[[nodiscard]] std::string count_of(uint64_t count, std::string_view noun);

}  // namespace qcache

#include "tools/human_text.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "core/base/units.h"
#include "core/model/text.h"

namespace qcache {
namespace {

bool is_continuation(char c) {
  return (static_cast<unsigned char>(c) & 0xC0U) == 0x80U;
}

}  // namespace

std::string printable(std::string_view text) {
  const bool utf8 = is_utf8(text);
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    // U+0080 to U+009F are control characters too; some terminals obey them.
    const bool wide_control =
        utf8 && byte == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0;
    if (byte < 0x20 || byte == 0x7F || (byte >= 0x80 && !utf8) || wide_control) {
      out += '?';
      i += wide_control ? 1 : 0;
    } else {
      out += text[i];
    }
  }
  return out;
}

size_t display_width(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return !is_continuation(c); }));
}

std::string format_ago(int64_t then_ns, int64_t now_ns) {
  constexpr int64_t kNanosecondsPerSecond = 1'000'000'000;
  const int64_t seconds = now_ns / kNanosecondsPerSecond - then_ns / kNanosecondsPerSecond;
  struct Unit {
    int64_t seconds;
    char letter;
  };
  constexpr std::array kUnits = {Unit{86400, 'd'}, Unit{3600, 'h'}, Unit{60, 'm'}, Unit{1, 's'}};
  for (const Unit& unit : kUnits) {
    if (seconds >= unit.seconds) {
      return fmt::format("{}{} ago", seconds / unit.seconds, unit.letter);
    }
  }
  return "just now";
}

std::string format_percent(double share) {
  return fmt::format("{}%", static_cast<int>(std::clamp(share, 0.0, 1.0) * 100));
}

std::string format_rate(double bytes_per_second) {
  return format_size(static_cast<uint64_t>(std::max(bytes_per_second, 0.0))) + "/s";
}

std::string filled(std::string_view text, size_t columns, size_t indent) {
  std::string out;
  const std::string margin(indent, ' ');
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = text.substr(begin, end - begin);
    out += begin > 0 ? '\n' + (line.empty() ? "" : margin) : "";
    begin = end + 1;
    if (line.starts_with(' ')) {
      out += line;
      continue;
    }
    size_t used = 0;
    while (!line.empty()) {
      const std::string_view word = line.substr(0, line.find(' '));
      line.remove_prefix(std::min(word.size() + 1, line.size()));
      const size_t width = display_width(word);
      if (used > 0 && used + 1 + width > columns) {
        out += '\n' + margin;
        used = 0;
      } else if (used > 0) {
        out += ' ';
        ++used;
      }
      out += word;
      used += width;
    }
  }
  return out;
}

std::string count_of(uint64_t count, std::string_view noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

}  // namespace qcache

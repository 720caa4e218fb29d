#include "core/model/text.h"

#include <cstddef>
#include <cstdint>

namespace qcache {
namespace {

// The length of the well-formed sequence at the start of `text`, 0 where there is none.
size_t sequence_length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) {
    return 1;
  }
  size_t length = 0;
  uint32_t value = 0;
  uint32_t least = 0;
  if (lead >> 5 == 0b110) {
    length = 2, value = lead & 0x1F, least = 0x80;
  } else if (lead >> 4 == 0b1110) {
    length = 3, value = lead & 0x0F, least = 0x800;
  } else if (lead >> 3 == 0b11110) {
    length = 4, value = lead & 0x07, least = 0x10000;
  } else {
    return 0;
  }
  if (text.size() < length) {
    return 0;
  }
  for (size_t i = 1; i < length; ++i) {
    if (byte(i) >> 6 != 0b10) {
      return 0;
    }
    value = value << 6 | (byte(i) & 0x3F);
  }
  const bool surrogate = value >= 0xD800 && value <= 0xDFFF;
  return value < least || value > 0x10FFFF || surrogate ? 0 : length;
}

}  // namespace

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = sequence_length(text);
    if (length == 0) {
      return false;
    }
    text.remove_prefix(length);
  }
  return true;
}

std::string in_quotes(std::string_view text) {
  constexpr size_t kMaxBytes = 120;
  std::string out("'");
  while (!text.empty()) {
    const size_t length = sequence_length(text);
    if (out.size() + length > kMaxBytes) {
      out += "...";
      break;
    }
    const auto lead = static_cast<uint8_t>(text[0]);
    // U+0080 to U+009F are control characters too.
    const bool control =
        lead < 0x20 || lead == 0x7F || (lead == 0xC2 && length == 2 && static_cast<uint8_t>(text[1]) < 0xA0);
    if (length == 0 || control) {
      out += '?';
    } else {
      out += text.substr(0, length);
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return out += '\'';
}

bool is_lfs_pointer(std::string_view beginning) {
  return beginning.starts_with("version ");
}

}  // namespace qcache

#pragma once

#include <string>
#include <string_view>

namespace qcache {

/// Whether all of `text` is well-formed UTF-8 (RFC 3629: no surrogates, nothing overlong or beyond U+10FFFF).
[[nodiscard]] bool is_utf8(std::string_view text);

/// `text` in single quotes for a message. Names in model files come from strangers, so what could spoil a
/// terminal or a log (control characters, bytes that are not UTF-8) becomes '?', and what is longer than
/// 120 bytes is cut.
[[nodiscard]] std::string in_quotes(std::string_view text);

/// Whether a file that begins so is the text which git leaves where a file kept in large file storage was not fetched.
[[nodiscard]] bool is_lfs_pointer(std::string_view beginning);
constexpr std::string_view kLfsPointerAdvice =
    "this is a git-lfs pointer, not the model file: run `git lfs pull` beside it";

}  // namespace qcache

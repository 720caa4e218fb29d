#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"

namespace qcache {

/// A member of a JSON object, as text.
struct JsonMember {
  std::string key;    ///< as written between the quotes, escapes and all
  std::string value;  ///< JSON
};

/// `object`, the text of a JSON object, with these members instead of those of the same keys; new ones at the end. All
/// other members keep their text to the byte, so numbers keep their digits, and NaN and Infinity, which Python writes
/// and JSON has not, survive. Of a key that occurs twice all are replaced by one. Fails with kInvalidModel where the
/// text is not an object that visit_json accepts with Python's numbers. Pure.
Result<std::string> with_members(std::string_view object, const std::vector<JsonMember>& members);

/// Whether the top level of that object has this key. False where the text is none.
[[nodiscard]] bool has_member(std::string_view object, std::string_view key);

}  // namespace qcache

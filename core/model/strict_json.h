#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/base/result.h"

namespace qcache {

enum class JsonKind { kNull, kBool, kUnsigned, kOtherNumber, kString, kObject, kArray };

/// A scalar, or the start of an object or array.
struct JsonValue {
  JsonKind kind = JsonKind::kNull;
  bool boolean = false;
  uint64_t number = 0;    ///< kUnsigned: written as digits only and below 2^64
  std::string_view text;  ///< kString, valid during the call
};

/// What visit_json tells, in the order of the text. An error returned from any of them ends the visit.
class JsonVisitor {
 public:
  virtual ~JsonVisitor() = default;
  virtual Status on_key(std::string_view key) = 0;
  virtual Status on_value(const JsonValue& value) = 0;
  /// The innermost object or array that was started ends.
  virtual Status on_end() = 0;
};

/// How strict to be about what JSON leaves open.
struct JsonRules {
  bool unique_keys = true;  ///< false: keys may repeat, as Python's reader allows
  /// NaN, Infinity and -Infinity are numbers, as Python writes them (Mamba configs have them).
  bool python_numbers = false;
};

constexpr size_t kMaxJsonDepth = 16;
constexpr size_t kMaxJsonKeyBytes = size_t{64} << 10;

/// Walks a JSON text made by a stranger. Refuses (kInvalidModel) what is not JSON or not UTF-8, text after the
/// value, NUL bytes, a byte order mark, nesting beyond kMaxJsonDepth and keys beyond kMaxJsonKeyBytes. Builds
/// no tree and does not recurse: memory is that of the longest string and of the keys of the open objects.
Status visit_json(std::string_view json, const JsonRules& rules, JsonVisitor& visitor);

}  // namespace qcache

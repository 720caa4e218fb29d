#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "core/store/store.h"

namespace qcache {

/// Keys keep the order in which they are added: JSON is also read by people.
using Json = nlohmann::ordered_json;

/// What people call a cached file: its path in a mount, or where that is lost its name in the cache directory.
[[nodiscard]] std::string label_of(const CacheEntry& entry);

/// "sealed", "complete", "filling".
[[nodiscard]] std::string_view state_of(const CacheEntry& entry);

/// The same as people read it: "filling 42%", or "stale" for a sealed file that aging takes next.
[[nodiscard]] std::string state_text(const CacheEntry& entry);

/// Everything known of a cached file. Sizes in bytes, times in RFC 3339; what a filling file does not have is null.
[[nodiscard]] Json to_json(const CacheEntry& entry, const CacheDirectory& directory);

/// `document` as text, with a newline at its end. Bytes that are not UTF-8 become U+FFFD.
[[nodiscard]] std::string json_text(const Json& document);

}  // namespace qcache

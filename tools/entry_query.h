#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "core/store/store.h"

namespace qcache {

/// Which cached files a list shows, and in which order.
struct EntryQuery {
  /// All must hold: "size>1G", "accessed>7d" (not for 7 days), "state=filling". See filter_help().
  std::vector<std::string> filters;
  /// "name" (the default), "size", "disk", "accessed" or "hits"; with ":asc" or ":desc" where the usual direction
  /// (names from A, the largest and latest first) is not meant.
  std::string sort;
  std::optional<uint64_t> limit;
};

/// Which fields and comparisons there are.
[[nodiscard]] std::string filter_help();

/// Applies `query` to `entries`. kInvalidArgument where it is malformed.
Status apply_query(const EntryQuery& query, int64_t now_ns, std::vector<CacheEntry>& entries);

}  // namespace qcache

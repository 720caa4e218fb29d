#include "tools/entry_query.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <functional>
#include <string_view>

#include <fmt/format.h>

#include "core/base/units.h"
#include "core/engine/artifact_name.h"
#include "core/model/text.h"
#include "tools/cache_entries.h"

namespace qcache {
namespace {

constexpr int64_t kNanosecondsPerSecond = 1'000'000'000;

/// What a filter compares: a number, or a word.
struct Field {
  std::string_view name;
  Result<int64_t> (*parse)(std::string_view);
  int64_t (*number)(const CacheEntry&, int64_t now_ns);  // null: a word
  std::string (*word)(const CacheEntry&);
};

Result<int64_t> parse_bytes(std::string_view text) {
  QCACHE_TRY_ASSIGN(const uint64_t bytes, parse_size(text));
  return static_cast<int64_t>(bytes);
}

Result<int64_t> parse_age(std::string_view text) {
  QCACHE_TRY_ASSIGN(const std::chrono::seconds age, parse_duration(text));
  return age.count();
}

Result<int64_t> parse_count(std::string_view text) {
  int64_t count = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), count);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size()) {
    return fail(ErrorKind::kInvalidArgument, fmt::format("{} is not a number", in_quotes(text)));
  }
  return count;
}

int64_t age_s(int64_t then_ns, int64_t now_ns) {
  return now_ns / kNanosecondsPerSecond - then_ns / kNanosecondsPerSecond;
}

std::string part_of_path(const CacheEntry& entry, bool model) {
  const auto path = parse_artifact_path(entry.record.virtual_path);
  return !path ? "" : model ? path->model : path->dtype;
}

constexpr std::array kFields = {
    Field{"size", parse_bytes,
          [](const CacheEntry& entry, int64_t) { return static_cast<int64_t>(entry.record.size_bytes); }, nullptr},
    Field{"disk", parse_bytes, [](const CacheEntry& entry, int64_t) { return static_cast<int64_t>(entry.disk_bytes); },
          nullptr},
    Field{"accessed", parse_age,
          [](const CacheEntry& entry, int64_t now_ns) { return age_s(entry.record.accessed_ns, now_ns); }, nullptr},
    Field{"created", parse_age,
          [](const CacheEntry& entry, int64_t now_ns) { return age_s(entry.record.created_ns, now_ns); }, nullptr},
    Field{"hits", parse_count, [](const CacheEntry& entry, int64_t) { return static_cast<int64_t>(entry.record.hits); },
          nullptr},
    Field{"rank", parse_count,
          [](const CacheEntry& entry, int64_t) {
            const auto path = parse_artifact_path(entry.record.virtual_path);
            return static_cast<int64_t>(path ? path->rank : 0);
          },
          nullptr},
    Field{"model", nullptr, nullptr, [](const CacheEntry& entry) { return part_of_path(entry, true); }},
    Field{"dtype", nullptr, nullptr, [](const CacheEntry& entry) { return part_of_path(entry, false); }},
    Field{"state", nullptr, nullptr,
          [](const CacheEntry& entry) { return entry.stale ? std::string("stale") : std::string(state_of(entry)); }},
    Field{"pinned", nullptr, nullptr,
          [](const CacheEntry& entry) { return std::string(entry.record.pinned ? "yes" : "no"); }},
};

bool holds(std::string_view comparison, int64_t left, int64_t right) {
  if (comparison == ">") {
    return left > right;
  }
  if (comparison == "<") {
    return left < right;
  }
  if (comparison == ">=") {
    return left >= right;
  }
  if (comparison == "<=") {
    return left <= right;
  }
  return comparison == "!=" ? left != right : left == right;
}

// A word as entries have it. kInvalidArgument where none can.
Result<std::string> meant_by(std::string_view field, std::string_view word) {
  const auto one_of = [&](const std::vector<std::string>& known) -> Result<std::string> {
    if (std::find(known.begin(), known.end(), word) != known.end()) {
      return std::string(word);
    }
    return fail(ErrorKind::kInvalidArgument,
                fmt::format("{} cannot be {}: it is {}", field, in_quotes(word), fmt::join(known, ", ")));
  };
  if (field == "state") {
    return one_of({"sealed", "complete", "filling", "stale"});
  }
  if (field == "pinned") {
    return one_of({"yes", "no"});
  }
  if (field == "dtype") {
    const Scheme* const scheme = find_scheme(word);
    return std::string(scheme != nullptr ? scheme->name() : word);
  }
  std::string model(word);
  if (const size_t slash = model.find('/'); slash != std::string::npos) {
    model.replace(slash, 1, "--");  // an id in the hub, as mounts show it
  }
  return model;
}

using Test = std::function<bool(const CacheEntry&)>;

Result<Test> parse_filter(const std::string& text, int64_t now_ns) {
  constexpr std::array<std::string_view, 6> kComparisons = {">=", "<=", "!=", ">", "<", "="};
  const size_t begin = text.find_first_of("<>=!");
  const std::string name = text.substr(0, begin);
  const auto* const field =
      std::find_if(kFields.begin(), kFields.end(), [&](const Field& one) { return one.name == name; });
  std::string_view rest = begin == std::string::npos ? "" : std::string_view(text).substr(begin);
  const auto* const comparison = std::find_if(kComparisons.begin(), kComparisons.end(),
                                              [&](std::string_view one) { return rest.starts_with(one); });
  if (field == kFields.end() || comparison == kComparisons.end()) {
    return fail(ErrorKind::kInvalidArgument, fmt::format("{} is not a filter: {}", in_quotes(text), filter_help()));
  }
  rest.remove_prefix(comparison->size());
  if (field->number == nullptr) {
    QCACHE_TRY_ASSIGN(const std::string meant, meant_by(field->name, rest));
    if (*comparison != "=" && *comparison != "!=") {
      return fail(ErrorKind::kInvalidArgument, fmt::format("{} can only be = or != something", field->name));
    }
    return Test([word = field->word, wanted = meant, equal = *comparison == "="](const CacheEntry& entry) {
      return (word(entry) == wanted) == equal;
    });
  }
  QCACHE_TRY_ASSIGN(const int64_t wanted, field->parse(rest));
  return Test([number = field->number, wanted, comparison = *comparison, now_ns](const CacheEntry& entry) {
    return holds(comparison, number(entry, now_ns), wanted);
  });
}

using Less = std::function<bool(const CacheEntry&, const CacheEntry&)>;

Result<Less> parse_sort(const std::string& text) {
  const size_t colon = std::min(text.find(':'), text.size());
  const std::string name = text.substr(0, colon);
  const std::string direction = text.substr(std::min(colon + 1, text.size()));
  Less less;
  bool descending = true;
  if (name == "name") {
    less = [](const CacheEntry& a, const CacheEntry& b) { return label_of(a) < label_of(b); };
    descending = false;
  } else if (name == "size") {
    less = [](const CacheEntry& a, const CacheEntry& b) { return a.record.size_bytes < b.record.size_bytes; };
  } else if (name == "disk") {
    less = [](const CacheEntry& a, const CacheEntry& b) { return a.disk_bytes < b.disk_bytes; };
  } else if (name == "accessed") {
    less = [](const CacheEntry& a, const CacheEntry& b) { return a.record.accessed_ns < b.record.accessed_ns; };
  } else if (name == "hits") {
    less = [](const CacheEntry& a, const CacheEntry& b) { return a.record.hits < b.record.hits; };
  }
  const bool known_direction = colon == text.size() || direction == "asc" || direction == "desc";
  if (!less || !known_direction) {
    return fail(ErrorKind::kInvalidArgument,
                fmt::format("cannot sort by {}: use name, size, disk, accessed or hits, with :asc or :desc behind it",
                            in_quotes(text)));
  }
  descending = direction.empty() ? descending : direction == "desc";
  return descending ? Less([less](const CacheEntry& a, const CacheEntry& b) { return less(b, a); }) : less;
}

}  // namespace

std::string filter_help() {
  return "such as size>1G, disk>1G, accessed>7d (not for 7 days), created<1h, hits=0, rank>0, model=NAME, dtype=int8, "
         "state=filling, pinned=yes";
}

Status apply_query(const EntryQuery& query, int64_t now_ns, std::vector<CacheEntry>& entries) {
  for (const std::string& text : query.filters) {
    QCACHE_TRY_ASSIGN(const Test test, parse_filter(text, now_ns));
    std::erase_if(entries, [&](const CacheEntry& entry) { return !test(entry); });
  }
  QCACHE_TRY_ASSIGN(const Less less, parse_sort(query.sort.empty() ? "name" : query.sort));
  std::stable_sort(entries.begin(), entries.end(), less);
  if (query.limit && entries.size() > *query.limit) {
    entries.erase(entries.begin() + static_cast<ptrdiff_t>(*query.limit), entries.end());
  }
  return {};
}

}  // namespace qcache

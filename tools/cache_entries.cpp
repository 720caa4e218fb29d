#include "tools/cache_entries.h"

#include "core/base/units.h"
#include "tools/human_text.h"

namespace qcache {

std::string label_of(const CacheEntry& entry) {
  return printable(entry.record.virtual_path.empty() ? entry.record.file : entry.record.virtual_path);
}

std::string_view state_of(const CacheEntry& entry) {
  return entry.sealed ? "sealed" : entry.complete ? "complete" : "filling";
}

std::string state_text(const CacheEntry& entry) {
  if (entry.stale) {
    return "stale";
  }
  const std::string_view state = state_of(entry);
  return state == "filling" ? "filling " + format_percent(entry.progress) : std::string(state);
}

Json to_json(const CacheEntry& entry, const CacheDirectory& directory) {
  const Record& record = entry.record;
  const auto if_sealed = [&](auto value) { return entry.sealed ? Json(std::move(value)) : Json(); };
  return Json{
      {"path", record.virtual_path},
      {"state", state_of(entry)},
      {"stale", entry.stale},
      {"progress", entry.progress},
      {"size_bytes", record.size_bytes},
      {"disk_bytes", entry.disk_bytes},
      {"accessed", format_time(record.accessed_ns)},
      {"created", if_sealed(format_time(record.created_ns))},
      {"hits", record.hits},
      {"pinned", record.pinned},
      {"in_use", entry.in_use},
      {"source", if_sealed(record.model_path)},
      {"sha256", entry.sealed && record.is_hashed() ? Json(to_hex(record.sha256)) : Json()},
      {"file", entry.sealed ? directory.sealed_path(record.file) : directory.filling_path(record.file)},
  };
}

std::string json_text(const Json& document) {
  return document.dump(2, ' ', false, Json::error_handler_t::replace) + '\n';
}

}  // namespace qcache

#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace qcache {

/// The text of what a loader reads. Names in it come from model files and may hold anything.
[[nodiscard]] inline std::string text_of(const nlohmann::ordered_json& json, int indent = -1) {
  return json.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace qcache

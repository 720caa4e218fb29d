#include "core/engine/quality_json.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

namespace qcache {
namespace {

using nlohmann::ordered_json;

ordered_json rounded(std::optional<double> db) {
  return db ? ordered_json(std::round(*db * 100) / 100) : ordered_json();
}

uint64_t measured_elements(std::span<const TensorQuality> tensors) {
  uint64_t elements = 0;
  for (const TensorQuality& tensor : tensors) {
    elements += tensor.elements;
  }
  return elements;
}

}  // namespace

std::string with_quality(const std::string& description, std::span<const TensorQuality> tensors) {
  ordered_json out = ordered_json::parse(description, nullptr, /*allow_exceptions=*/false);
  ordered_json by_module = ordered_json::object();
  for (const TensorQuality& tensor : tensors) {
    by_module[tensor.module] = rounded(tensor.sqnr_db());
  }
  out["sqnr_db"] = std::move(by_module);
  out["sqnr_measured_elements"] = measured_elements(tensors);
  return out.dump(2, ' ', false, ordered_json::error_handler_t::replace) + '\n';
}

std::string quality_summary(std::span<const TensorQuality> tensors) {
  std::vector<std::pair<double, const std::string*>> known;
  for (const TensorQuality& tensor : tensors) {
    if (const auto db = tensor.sqnr_db()) {
      known.emplace_back(*db, &tensor.module);
    }
  }
  std::ranges::sort(known, {}, [](const auto& entry) { return std::pair(entry.first, *entry.second); });
  constexpr size_t kWorst = 5;
  ordered_json worst = ordered_json::object();
  for (size_t i = 0; i < std::min(kWorst, known.size()); ++i) {
    worst[*known[i].second] = rounded(known[i].first);
  }
  const ordered_json out = {
      {"weights", tensors.size()},
      {"measured_elements", measured_elements(tensors)},
      {"median_db", rounded(known.empty() ? std::nullopt : std::optional(known[known.size() / 2].first))},
      {"worst_db", std::move(worst)}};
  return out.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace qcache

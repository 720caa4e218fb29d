#include "core/model/weight_index.h"

#include <algorithm>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "core/model/strict_json.h"
#include "core/model/text.h"
#include "core/model/weight_files.h"

namespace qcache {
namespace {

constexpr size_t kMaxIndexBytes = 100'000'000;

tl::unexpected<Error> invalid(std::string message) {
  return fail(ErrorKind::kInvalidModel, std::move(message));
}

/// Collects `weight_map`; the other keys of the index, such as `metadata`, may hold anything.
class IndexVisitor final : public JsonVisitor {
 public:
  std::vector<std::pair<std::string, std::string>> weight_map;
  bool found = false;

  Status on_key(std::string_view key) override {
    if (depth_ == 1) {
      in_map_ = key == "weight_map";
      if (in_map_ && found) {
        return invalid("the key 'weight_map' is there twice");
      }
    } else if (depth_ == 2 && in_map_) {
      tensor_ = key;
    }
    return {};
  }

  Status on_value(const JsonValue& value) override {
    if (depth_ == 0 && value.kind != JsonKind::kObject) {
      return invalid("the index is not a JSON object");
    }
    if (depth_ == 1 && in_map_) {
      if (value.kind != JsonKind::kObject) {
        return invalid("the weight_map of the index is not an object");
      }
      found = true;
    }
    if (depth_ == 2 && in_map_) {
      if (value.kind != JsonKind::kString) {
        return invalid(fmt::format("the index names no file for tensor {}", in_quotes(tensor_)));
      }
      if (!is_plain_file_name(value.text)) {
        return invalid(fmt::format("the index names {} for tensor {}, which is not a plain file name",
                                   in_quotes(value.text), in_quotes(tensor_)));
      }
      weight_map.emplace_back(tensor_, value.text);
    }
    depth_ += value.kind == JsonKind::kObject || value.kind == JsonKind::kArray ? 1 : 0;
    return {};
  }

  Status on_end() override {
    --depth_;
    return {};
  }

 private:
  size_t depth_ = 0;
  bool in_map_ = false;
  std::string tensor_;
};

}  // namespace

Result<WeightIndex> parse_weight_index(std::string_view json) {
  if (json.size() > kMaxIndexBytes) {
    return invalid(fmt::format("the index has {} bytes, more than the 100 MB that qcache reads", json.size()));
  }
  IndexVisitor visitor;
  QCACHE_TRY(visit_json(json, {.unique_keys = false}, visitor));
  if (!visitor.found || visitor.weight_map.empty()) {
    return invalid("the index has no weight_map, or an empty one");
  }
  WeightIndex index;
  index.weight_map = std::move(visitor.weight_map);
  std::sort(index.weight_map.begin(), index.weight_map.end());
  index.weight_map.erase(std::unique(index.weight_map.begin(), index.weight_map.end()), index.weight_map.end());
  const auto twice = std::adjacent_find(index.weight_map.begin(), index.weight_map.end(),
                                        [](const auto& a, const auto& b) { return a.first == b.first; });
  if (twice != index.weight_map.end()) {
    return invalid(fmt::format("the key {} is there twice, for {} and {}", in_quotes(twice->first),
                               in_quotes(twice->second), in_quotes(std::next(twice)->second)));
  }
  for (const auto& [tensor, shard] : index.weight_map) {
    index.shards.push_back(shard);
  }
  std::sort(index.shards.begin(), index.shards.end());
  index.shards.erase(std::unique(index.shards.begin(), index.shards.end()), index.shards.end());
  return index;
}

}  // namespace qcache

#include "core/model/weight_files.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <map>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "core/model/text.h"

namespace qcache {
namespace {

constexpr std::string_view kExtension = ".safetensors";

bool is_safetensors(std::string_view name) {
  return name.size() > kExtension.size() && name.ends_with(kExtension);
}

bool contains(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// A weight file's name taken apart: "model-00002-of-00003.fp16.safetensors" has the stem "model.fp16" and is
/// shard 2 of 3; a file that is not a shard is shard 0 of 0.
struct WeightName {
  std::string stem;
  uint32_t shard = 0;
  uint32_t shards = 0;
};

WeightName take_apart(std::string_view name) {
  name.remove_suffix(kExtension.size());
  constexpr std::string_view kOf = "-of-";
  constexpr size_t kDigits = 5;
  constexpr size_t kTail = 1 + kDigits + kOf.size() + kDigits;  // "-00002-of-00003"
  const auto number = [](std::string_view digits) {
    uint32_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return error == std::errc() && end == digits.data() + digits.size() ? value : 0;
  };
  const size_t of = name.rfind(kOf);
  if (of != std::string_view::npos && of > kDigits && name.size() >= of + kOf.size() + kDigits &&
      name[of - kDigits - 1] == '-') {
    const uint32_t shard = number(name.substr(of - kDigits, kDigits));
    const uint32_t shards = number(name.substr(of + kOf.size(), kDigits));
    const size_t begin = of - kDigits - 1;
    const std::string_view rest = name.substr(begin + kTail);
    if (shard > 0 && shard <= shards && (rest.empty() || rest.front() == '.')) {
      return {std::string(name.substr(0, begin)) + std::string(rest), shard, shards};
    }
  }
  return {std::string(name), 0, 0};
}

bool is_variant(const std::string& stem, const std::map<std::string, std::vector<std::string>>& by_stem) {
  const size_t dot = stem.rfind('.');
  return dot != std::string::npos && dot + 1 < stem.size() && by_stem.contains(stem.substr(0, dot));
}

Status check_complete(const std::vector<std::string>& names) {
  std::map<std::pair<std::string, uint32_t>, std::set<uint32_t>> sets;
  for (const std::string& name : names) {
    const WeightName parts = take_apart(name);
    if (parts.shards > 0) {
      sets[{parts.stem, parts.shards}].insert(parts.shard);
    }
  }
  for (const auto& [set, present] : sets) {
    if (present.size() != set.second) {
      uint32_t missing = 1;
      while (present.contains(missing)) {
        ++missing;
      }
      return fail(ErrorKind::kInvalidModel,
                  fmt::format("of the {} files of {} only {} are there, number {} is missing: is the download "
                              "complete?",
                              set.second, in_quotes(set.first), present.size(), missing));
    }
  }
  return {};
}

}  // namespace

bool is_plain_file_name(std::string_view name) {
  constexpr size_t kMaxBytes = 255;
  return !name.empty() && name.size() <= kMaxBytes && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
}

bool holds_weights(const std::vector<std::string>& names) {
  return std::any_of(names.begin(), names.end(), is_safetensors);
}

Result<WeightFiles> choose_weight_files(const std::vector<std::string>& names) {
  if (contains(names, kSingleFileName)) {
    return WeightFiles{WeightFiles::Layout::kSingle, {kSingleFileName}};
  }
  if (contains(names, kIndexFileName)) {
    return WeightFiles{WeightFiles::Layout::kIndexed, {}};
  }
  std::map<std::string, std::vector<std::string>> by_stem;
  for (const std::string& name : names) {
    if (is_safetensors(name)) {
      by_stem[take_apart(name).stem].push_back(name);
    }
  }
  if (by_stem.empty()) {
    return fail(ErrorKind::kNotFound, "the folder holds no weights: qcache reads *.safetensors files");
  }
  if (by_stem.size() > 1) {
    by_stem.erase("adapter_model");
  }
  WeightFiles chosen;
  for (const auto& [stem, files] : by_stem) {
    if (!is_variant(stem, by_stem)) {
      chosen.names.insert(chosen.names.end(), files.begin(), files.end());
    }
  }
  std::sort(chosen.names.begin(), chosen.names.end());
  QCACHE_TRY(check_complete(chosen.names));
  return chosen;
}

}  // namespace qcache

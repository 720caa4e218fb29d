#include "core/model/weight_files.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <map>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "core/model/text.h"

namespace qcache {
namespace {

constexpr std::string_view kSafetensorsExtension = ".safetensors";
constexpr std::array<std::string_view, 3> kTorchExtensions = {".bin", ".pt", ".pth"};

/// The names under which transformers keeps a model, best first.
struct WellKnown {
  const char* name;
  WeightFormat format;
  bool is_index;
};
constexpr std::array kWellKnown = {
    WellKnown{"model.safetensors", WeightFormat::kSafetensors, false},
    WellKnown{"model.safetensors.index.json", WeightFormat::kSafetensors, true},
    WellKnown{"pytorch_model.bin", WeightFormat::kTorch, false},
    WellKnown{"pytorch_model.bin.index.json", WeightFormat::kTorch, true},
};

/// The extension of a weight file of this format; empty where the name has none, or nothing before it.
std::string_view extension_of(std::string_view name, WeightFormat format) {
  const auto fits = [name](std::string_view extension) {
    return name.size() > extension.size() && name.ends_with(extension);
  };
  if (format == WeightFormat::kSafetensors) {
    return fits(kSafetensorsExtension) ? kSafetensorsExtension : std::string_view();
  }
  const auto* const found = std::find_if(kTorchExtensions.begin(), kTorchExtensions.end(), fits);
  return found != kTorchExtensions.end() ? *found : std::string_view();
}

/// Whether torch.save wrote a file of this stem for something else than weights.
bool is_training_state(std::string_view stem) {
  constexpr std::array<std::string_view, 5> kWhole = {"training_args", "trainer_state", "optimizer", "scheduler",
                                                      "scaler"};
  constexpr std::array<std::string_view, 4> kBeginnings = {"rng_state", "random_states", "optimizer_", "scheduler_"};
  return std::find(kWhole.begin(), kWhole.end(), stem) != kWhole.end() || stem.ends_with("optim_states") ||
         std::any_of(kBeginnings.begin(), kBeginnings.end(),
                     [&](auto beginning) { return stem.starts_with(beginning); });
}

bool is_loose_weights(std::string_view name, WeightFormat format) {
  const std::string_view extension = extension_of(name, format);
  return !extension.empty() &&
         (format == WeightFormat::kSafetensors || !is_training_state(name.substr(0, name.size() - extension.size())));
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

WeightName take_apart(std::string_view name, WeightFormat format) {
  name.remove_suffix(extension_of(name, format).size());
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

Status check_complete(const std::vector<std::string>& names, WeightFormat format) {
  std::map<std::pair<std::string, uint32_t>, std::set<uint32_t>> sets;
  for (const std::string& name : names) {
    const WeightName parts = take_apart(name, format);
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

/// The names of this format that belong to the model together.
std::vector<std::string> loose_files(const std::vector<std::string>& names, WeightFormat format) {
  std::map<std::string, std::vector<std::string>> by_stem;
  for (const std::string& name : names) {
    if (is_loose_weights(name, format)) {
      by_stem[take_apart(name, format).stem].push_back(name);
    }
  }
  if (by_stem.size() > 1) {
    by_stem.erase("adapter_model");
  }
  std::vector<std::string> chosen;
  for (const auto& [stem, files] : by_stem) {
    if (!is_variant(stem, by_stem)) {
      chosen.insert(chosen.end(), files.begin(), files.end());
    }
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

}  // namespace

bool is_plain_file_name(std::string_view name) {
  constexpr size_t kMaxBytes = 255;
  return !name.empty() && name.size() <= kMaxBytes && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
}

Result<WeightFiles> choose_weight_files(const std::vector<std::string>& names) {
  WeightFiles chosen;
  for (const WellKnown& candidate : kWellKnown) {
    if (contains(names, candidate.name)) {
      chosen.format = candidate.format;
      (candidate.is_index ? chosen.index : chosen.names.emplace_back()) = candidate.name;
      return chosen;
    }
    chosen.earlier.emplace_back(candidate.name);
  }
  for (const WeightFormat format : {WeightFormat::kSafetensors, WeightFormat::kTorch}) {
    chosen.names = loose_files(names, format);
    if (!chosen.names.empty()) {
      chosen.format = format;
      QCACHE_TRY(check_complete(chosen.names, format));
      return chosen;
    }
  }
  return fail(ErrorKind::kNotFound,
              "the folder holds no weights: qcache reads *.safetensors and torch's *.bin, *.pt and *.pth files");
}

WeightSigns weight_signs(const std::vector<std::string>& names) {
  const auto chosen = choose_weight_files(names);
  if (!chosen) {  // an incomplete model is one, too
    return chosen.error().kind == ErrorKind::kNotFound ? WeightSigns::kNone : WeightSigns::kSure;
  }
  const bool loose_torch = chosen->format == WeightFormat::kTorch && chosen->earlier.size() == kWellKnown.size();
  return loose_torch ? WeightSigns::kLooseTorch : WeightSigns::kSure;
}

}  // namespace qcache

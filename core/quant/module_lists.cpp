#include "core/quant/module_lists.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <unordered_set>

namespace qcache {
namespace {

using Names = std::vector<std::string>;

constexpr std::array<std::string_view, 8> kOutputHeads = {
    "lm_head",         "lm_head.decoder",     "proj_out",         "embed_out", "cls.predictions.decoder",
    "vocab_projector", "predictions.decoder", "generator_lm_head"};

/// Comparisons of a dense name with a quantized one, above which nobody waits for them: a real model has a few million,
/// a hostile header could ask for 10^10.
constexpr size_t kMaxComparisons = 50'000'000;

bool too_many_to_compare(size_t dense, size_t quantized) {
  return dense > 0 && quantized > kMaxComparisons / dense;
}

/// Mixtral's blocks in files and in transformers 4, and in transformers 5.
constexpr std::string_view kOldMixtralBlock = ".block_sparse_moe.";
constexpr std::string_view kNewMixtralBlock = ".mlp.";

std::string_view last_part(std::string_view name) {
  return name.substr(name.rfind('.') + 1);
}

/// The name in transformers 5, or empty where it is the same.
std::string renamed(std::string_view name) {
  const size_t at = name.find(kOldMixtralBlock);
  if (at == std::string_view::npos) {
    return {};
  }
  std::string out(name.substr(0, at));
  out += kNewMixtralBlock;
  out += name.substr(at + kOldMixtralBlock.size());
  return out;
}

Names with_renamed(std::span<const std::string> names) {
  Names out;
  for (const std::string& name : names) {
    out.push_back(name);
    if (std::string other = renamed(name); !other.empty()) {
      out.push_back(std::move(other));
    }
  }
  return out;
}

/// Whether the only character with a meaning in a regular expression is the dot.
bool is_plain(std::string_view name) {
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
           c == '.';
  });
}

std::string anchored(std::string_view name) {
  constexpr std::string_view kSpecial = R"(.^$*+?()[]{}\|)";
  std::string out = "^";
  for (const char c : name) {
    if (kSpecial.find(c) != std::string_view::npos) {
      out += '\\';
    }
    out += c;
  }
  return out + "$";
}

/// Whether transformers takes the plain `entry` to match `name`: as an expression from its start to a boundary between
/// parts, or as its end.
bool transformers_matches(std::string_view entry, std::string_view name) {
  if (entry.size() > name.size()) {
    return false;
  }
  if (name.ends_with(entry)) {
    return true;
  }
  const bool prefix = std::equal(entry.begin(), entry.end(), name.begin(),
                                 [](char wanted, char found) { return wanted == '.' || wanted == found; });
  return prefix && (entry.size() == name.size() || name[entry.size()] == '.' ||
                    (!entry.empty() && name[entry.size() - 1] == '.'));
}

/// "x.experts" for "x.experts.3.w1", else empty.
std::string_view experts_of(std::string_view name) {
  constexpr std::string_view kExperts = ".experts.";
  const size_t at = name.find(kExperts);
  return at == std::string_view::npos ? std::string_view() : name.substr(0, at + kExperts.size() - 1);
}

/// `names` with the modules of each "x.experts" joined to that one name, where no quantized module lies below it.
Names with_experts_joined(std::span<const std::string> names, std::span<const std::string> quantized) {
  std::unordered_set<std::string_view> kept_apart;
  for (const std::string& name : quantized) {
    kept_apart.insert(experts_of(name));
  }
  Names out;
  std::unordered_set<std::string_view> joined;
  for (const std::string& name : names) {
    const std::string_view experts = experts_of(name);
    if (experts.empty() || kept_apart.contains(experts)) {
      out.push_back(name);
    } else if (joined.insert(experts).second) {
      out.emplace_back(experts);
    }
  }
  return out;
}

}  // namespace

Names transformers_skip_list(const StoredModel& stored) {
  const Names quantized = with_renamed(stored.quantized_modules);
  Names out = with_renamed(with_experts_joined(stored.dense_modules, stored.quantized_modules));
  const bool too_many = too_many_to_compare(out.size(), quantized.size());
  for (std::string& entry : out) {
    // An anchored expression is always right; plain names are what other readers of the list understand, too.
    const bool unclear = too_many || !is_plain(entry) ||
                         std::any_of(quantized.begin(), quantized.end(),
                                     [&](std::string_view name) { return transformers_matches(entry, name); });
    if (unclear) {
      entry = anchored(entry);
    }
  }
  return out;
}

Names compressed_tensors_ignore_list(const StoredModel& stored) {
  // An entry is also compared with the names of a module's classes.
  constexpr std::array<std::string_view, 3> kClasses = {"Linear", "LinearBase", "Module"};
  Names out = with_renamed(stored.dense_modules);
  for (std::string& entry : out) {
    if (entry.starts_with("re:") || std::find(kClasses.begin(), kClasses.end(), entry) != kClasses.end()) {
      entry = "re:" + anchored(entry);
    }
  }
  return out;
}

std::optional<Names> diffusers_skip_list(const StoredModel& stored) {
  if (too_many_to_compare(stored.dense_modules.size(), stored.quantized_modules.size())) {
    return std::nullopt;
  }
  for (const std::string& entry : stored.dense_modules) {
    const std::string above = entry + ".";
    for (const std::string& name : stored.quantized_modules) {
      if (entry == last_part(name) || name.find(above) != std::string::npos) {
        return std::nullopt;
      }
    }
  }
  return stored.dense_modules;
}

std::optional<Names> diffusers_quanto_skip_list(const StoredModel& stored) {
  std::unordered_set<std::string_view> quantized;
  for (const std::string& name : stored.quantized_modules) {
    quantized.insert(last_part(name));
  }
  Names out;
  std::unordered_set<std::string_view> seen;
  for (const std::string& name : stored.dense_modules) {
    const std::string_view last = last_part(name);
    if (quantized.contains(last)) {
      return std::nullopt;
    }
    if (seen.insert(last).second) {
      out.emplace_back(last);
    }
  }
  return out;
}

Names absent_output_heads(const SourceModel& model, std::span<const std::string> quantized_modules) {
  std::unordered_set<std::string_view> tensors;
  for (const TensorInfo& tensor : model.tensors) {
    tensors.insert(tensor.name);
  }
  Names out;
  for (const std::string_view head : kOutputHeads) {
    const bool unclear = std::any_of(quantized_modules.begin(), quantized_modules.end(),
                                     [head](std::string_view name) { return transformers_matches(head, name); });
    if (!unclear && !tensors.contains(std::string(head) + ".weight")) {
      out.emplace_back(head);
    }
  }
  return out;
}

}  // namespace qcache

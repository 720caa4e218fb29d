#include "fs/xattrs.h"

#include <algorithm>

#include <fmt/format.h>

#include "core/base/units.h"
#include "core/engine/quality_json.h"

namespace qcache {
namespace {

constexpr std::string_view kPrefix = "user.qcache.";

std::optional<bool> parse_switch(std::string_view value) {
  if (value == "1" || value == "true" || value == "yes") {
    return true;
  }
  if (value == "0" || value == "false" || value == "no") {
    return false;
  }
  return std::nullopt;
}

std::string joined(const std::vector<std::string>& words) {
  return fmt::format("{}", fmt::join(words, " "));
}

}  // namespace

Result<Xattrs::Values> Xattrs::values(const Node& node) const {
  Values out;
  const auto add = [&](std::string_view name, std::string value) {
    out.emplace_back(fmt::format("{}{}", kPrefix, name), std::move(value));
  };
  if (node.kind == NodeKind::kModel) {
    QCACHE_TRY_ASSIGN(const FoundModel found, engine_.locate_model(node.artifact.model));
    add("source", found.path);
    const auto source = engine_.model(node.artifact.model);
    if (!source) {
      add("error", source.error().message);
      return out;
    }
    std::vector<std::string> served;
    std::string refused;
    for (const DtypeInfo& dtype : Engine::dtypes(**source)) {
      if (dtype.refusal.empty()) {
        served.emplace_back(dtype.scheme->name());
      } else {
        refused += fmt::format("{}: {}\n", dtype.scheme->name(), dtype.refusal);
      }
    }
    add("dtypes", joined(served));
    if (!refused.empty()) {
      add("refused", refused);
    }
    if (!(*source)->facts.config_problem.empty()) {
      add("config_problem", (*source)->facts.config_problem);
    }
  } else if (node.kind == NodeKind::kArtifact) {
    QCACHE_TRY_ASSIGN(const ArtifactInfo info, engine_.describe(node.artifact));
    add("state", std::string(to_string(info.state)));
    QCACHE_TRY_ASSIGN(const double progress, engine_.progress(info));
    add("progress", fmt::format("{:.4f}", progress));
    add("source", info.model_path);
    if (info.record) {
      add("sha256", to_hex(info.record->sha256));
      add("created", format_time(info.record->created_ns));
      add("accessed", format_time(info.record->accessed_ns));
      add("hits", fmt::format("{}", info.record->hits));
      QCACHE_TRY_ASSIGN(const auto tensors, engine_.store().catalog().quality(*info.record));
      if (!tensors.empty()) {
        add("sqnr", quality_summary(tensors));
      }
    }
    if (!info.backing.empty()) {
      add("backing", info.backing);
    }
    QCACHE_TRY_ASSIGN(const auto pinned, engine_.store().is_pinned(info.file, info.recipe));
    if (pinned) {
      add("pinned", *pinned ? "1" : "0");
    }
    if (!info.error.empty()) {
      add("error", info.error);
    }
  }
  return out;
}

bool Xattrs::is_ours(std::string_view name) {
  return name.starts_with(kPrefix);
}

Result<std::vector<std::string>> Xattrs::list(const Node& node) const {
  QCACHE_TRY_ASSIGN(const Values all, values(node));
  std::vector<std::string> names;
  names.reserve(all.size());
  for (const auto& [name, value] : all) {
    names.push_back(name);
  }
  return names;
}

Result<std::optional<std::string>> Xattrs::get(const Node& node, std::string_view name) const {
  QCACHE_TRY_ASSIGN(const Values all, values(node));
  const auto found = std::find_if(all.begin(), all.end(), [&](const auto& entry) { return entry.first == name; });
  return found == all.end() ? std::nullopt : std::optional(found->second);
}

Status Xattrs::set(const Node& node, std::string_view name, std::string_view value, int64_t& settles_in_ns) const {
  const std::optional<bool> on = parse_switch(value);
  const bool pinned = name == "user.qcache.pinned";
  if (node.kind != NodeKind::kArtifact || (!pinned && name != "user.qcache.warm")) {
    return fail(ErrorKind::kPermission, fmt::format("{} of {} cannot be set", name, node.path));
  }
  if (!on) {
    return fail(ErrorKind::kInvalidArgument, fmt::format("{} takes 1 or 0, not '{}'", name, value));
  }
  return pinned ? engine_.set_pinned(node.artifact, *on) : engine_.set_warm_now(node.artifact, *on, settles_in_ns);
}

}  // namespace qcache

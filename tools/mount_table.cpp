#include "tools/mount_table.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include <nlohmann/json.hpp>

namespace qcache {

std::vector<RunningMount> running_mounts(Env& env, const std::string& table) {
  constexpr size_t kMaxTableBytes = size_t{16} << 20U;
  const auto text = read_text(env, table, kMaxTableBytes);
  std::vector<RunningMount> running;
  for (const MountEntry& entry : parse_mount_info(text.value_or(""))) {
    if (entry.type != kQcacheMountType || entry.root != "/") {
      continue;
    }
    const auto status = read_text(env, entry.mount_point + "/.qcache/status");
    const auto json = nlohmann::json::parse(status.value_or(""), nullptr, false);
    const auto directory = json.is_object() ? json.find("cache_dir") : json.end();
    if (json.is_object() && directory != json.end() && directory->is_string()) {
      running.push_back({entry.mount_point, directory->get<std::string>(), entry.user_id == ::geteuid()});
    }
  }
  return running;
}

std::string MountPath::full_path() const {
  std::string path = mount.mount_point;
  for (const std::string& name : names) {
    path += '/' + name;
  }
  return path;
}

std::optional<MountPath> locate_in_mounts(Env& env, const std::string& path, const std::vector<RunningMount>& mounts) {
  const auto real = env.real_path(path);
  std::error_code ignored;
  const std::string absolute = real ? *real : std::filesystem::absolute(path, ignored).lexically_normal().string();
  const RunningMount* best = nullptr;
  for (const RunningMount& mount : mounts) {
    if (lies_within(absolute, mount.mount_point) &&
        (best == nullptr || mount.mount_point.size() > best->mount_point.size())) {
      best = &mount;
    }
  }
  if (best == nullptr) {
    return std::nullopt;
  }
  return MountPath{*best, split_path(std::string_view(absolute).substr(best->mount_point.size()))};
}

std::vector<std::string> split_path(std::string_view path) {
  std::vector<std::string> names;
  while (!path.empty()) {
    const size_t end = std::min(path.find('/'), path.size());
    if (end > 0) {
      names.emplace_back(path.substr(0, end));
    }
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return names;
}

}  // namespace qcache

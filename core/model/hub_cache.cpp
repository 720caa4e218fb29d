#include "core/model/hub_cache.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "core/model/source_folders.h"
#include "core/model/weight_files.h"

namespace qcache {
namespace {

constexpr uint64_t kMaxRefBytes = 256;

// The text of refs/main without its line end; empty where there is none that could name a snapshot.
std::string main_ref(Env& env, const std::string& repo_folder) {
  auto file = SourceFolders(env, resolve_folders(env, {repo_folder})).read(repo_folder + "/refs/main", kMaxRefBytes);
  if (!file) {
    return {};
  }
  std::string& text = file->content;
  text.erase(std::find_if(text.begin(), text.end(), [](unsigned char c) { return c <= ' '; }), text.end());
  return is_plain_file_name(text) ? std::move(text) : std::string();
}

}  // namespace

std::string_view hub_repo_name(std::string_view folder_name) {
  return folder_name.starts_with(kHubModelPrefix) ? folder_name.substr(kHubModelPrefix.size()) : std::string_view();
}

std::optional<HubLocation> hub_location(std::string_view path) {
  constexpr std::string_view kSnapshots = "/snapshots/";
  // A model folder may itself have a subfolder "snapshots", so every place counts; the innermost first.
  for (size_t at = path.rfind(kSnapshots); at != std::string_view::npos && at > 0;
       at = path.rfind(kSnapshots, at - 1)) {
    const std::string_view repo_folder = path.substr(0, at);
    const std::string_view name = hub_repo_name(repo_folder.substr(repo_folder.rfind('/') + 1));
    if (!name.empty() && path.size() > at + kSnapshots.size()) {
      return HubLocation{std::string(repo_folder), std::string(name)};
    }
  }
  return std::nullopt;
}

Result<std::optional<std::string>> current_snapshot(Env& env, const std::string& repo_folder) {
  const std::string snapshots = repo_folder + "/snapshots";
  if (const std::string commit = main_ref(env, repo_folder); !commit.empty()) {
    std::string folder = snapshots + '/' + commit;
    if (const auto stat = env.stat(folder); stat && stat->is_directory()) {
      return std::optional(std::move(folder));
    }
  }
  auto names = env.list(snapshots);
  if (!names) {
    if (names.error().kind == ErrorKind::kNotFound) {
      return std::optional<std::string>();
    }
    return fail(names.error());
  }
  std::sort(names->begin(), names->end());  // of two with one time, always the same
  std::optional<std::string> newest;
  int64_t newest_ns = 0;
  for (const std::string& name : *names) {
    std::string folder = fmt::format("{}/{}", snapshots, name);
    const auto stat = env.stat(folder);
    if (stat && stat->is_directory() && (!newest || stat->mtime_ns > newest_ns)) {
      newest = std::move(folder);
      newest_ns = stat->mtime_ns;
    }
  }
  return newest;
}

}  // namespace qcache

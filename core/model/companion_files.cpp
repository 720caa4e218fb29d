#include "core/model/companion_files.h"

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>

#include "core/base/mount_info.h"
#include "core/model/hub_cache.h"
#include "core/model/weight_files.h"

namespace qcache {
namespace {

constexpr std::array<std::string_view, 12> kWeightEndings = {".safetensors", ".bin",  ".pt",     ".pth",
                                                             ".ckpt",        ".gguf", ".h5",     ".msgpack",
                                                             ".ot",          ".onnx", ".tflite", ".index.json"};

bool holds_weights_of_some_framework(std::string_view name) {
  return std::any_of(kWeightEndings.begin(), kWeightEndings.end(),
                     [&](std::string_view ending) { return name.ends_with(ending); });
}

bool is_plain_path(std::string_view relative) {
  while (!relative.empty()) {
    const size_t slash = relative.find('/');
    if (!is_plain_file_name(relative.substr(0, slash))) {
      return false;
    }
    if (slash == std::string_view::npos) {
      return true;
    }
    relative.remove_prefix(slash + 1);
  }
  return true;
}

std::string_view folder_of(std::string_view relative) {
  const size_t slash = relative.rfind('/');
  return slash == std::string_view::npos ? std::string_view() : relative.substr(0, slash);
}

tl::unexpected<Error> not_found(const std::string& relative) {
  return fail(ErrorKind::kNotFound, fmt::format("the model's folder shows no '{}'", relative));
}

}  // namespace

CompanionFiles::CompanionFiles(Env& env, std::string model_path, std::string weights_folder,
                               std::vector<std::string> roots)
    : env_(env),
      model_path_(std::move(model_path)),
      weights_folder_(std::move(weights_folder)),
      roots_(std::move(roots)) {}

bool CompanionFiles::is_left_out(const std::string& relative) const {
  const std::string_view folder = folder_of(relative);
  const std::string_view name = std::string_view(relative).substr(folder.empty() ? 0 : folder.size() + 1);
  if (folder.empty() && name.starts_with('.')) {
    return true;
  }
  return (folder.empty() || folder == weights_folder_) && holds_weights_of_some_framework(name);
}

Result<std::string> CompanionFiles::resolve(const std::string& relative) const {
  if (relative.empty()) {
    return model_path_;
  }
  if (!is_plain_path(relative) || is_left_out(relative)) {
    return not_found(relative);
  }
  const std::string path = model_path_ + '/' + relative;
  QCACHE_TRY_ASSIGN(std::string real, env_.real_path(path));
  if (real == path) {
    return real;  // no link on the way
  }
  const std::string folder = path.substr(0, path.rfind('/'));
  QCACHE_TRY_ASSIGN(const std::string real_folder, env_.real_path(folder));
  if (real_folder != folder) {
    return not_found(relative);
  }
  if (!may_lead_to(real)) {
    return fail(ErrorKind::kNotFound, fmt::format("{}/{} is a link to {}, outside the mounted folders: qcache does not "
                                                  "follow it",
                                                  model_path_, relative, real));
  }
  return real;
}

bool CompanionFiles::may_lead_to(const std::string& real) const {
  const auto is_inside = [&](std::string folder) {
    folder += folder.ends_with('/') ? "" : "/";
    return real.starts_with(folder);
  };
  if (is_inside(model_path_)) {
    return true;
  }
  if (const auto hub = hub_location(model_path_)) {
    return is_inside(hub->repo_folder);
  }
  return std::any_of(roots_.begin(), roots_.end(), [&](const std::string& root) {
    const auto real_root = env_.real_path(root);
    return real_root && is_inside(*real_root);
  });
}

Result<std::vector<CompanionEntry>> CompanionFiles::list(const std::string& relative) const {
  QCACHE_TRY(stat(relative));
  QCACHE_TRY_ASSIGN(std::vector<std::string> names,
                    env_.list(relative.empty() ? model_path_ : model_path_ + '/' + relative));
  std::sort(names.begin(), names.end());
  std::vector<CompanionEntry> entries;
  const std::string prefix = relative.empty() ? relative : relative + '/';
  for (std::string& name : names) {
    const auto found = stat(prefix + name);
    if (found) {
      entries.push_back({std::move(name), found->is_directory()});
    }
  }
  return entries;
}

Result<FileStat> CompanionFiles::stat(const std::string& relative) const {
  QCACHE_TRY_ASSIGN(const std::string real, resolve(relative));
  QCACHE_TRY_ASSIGN(const FileStat found, env_.stat(real));
  const bool linked_folder = found.is_directory() && !relative.empty() && real != model_path_ + '/' + relative;
  // A mount of qcache below the folder would show the folder in itself, without end.
  const bool mount = found.is_directory() && MountTable::read(env_).is_qcache_device(found.device);
  if (linked_folder || mount || (!found.is_directory() && !found.is_regular())) {
    return not_found(relative);
  }
  return found;
}

Result<SourceFile> CompanionFiles::open(const std::string& relative) const {
  QCACHE_TRY_ASSIGN(const std::string real, resolve(relative));
  return SourceFile::open(env_, real);
}

}  // namespace qcache

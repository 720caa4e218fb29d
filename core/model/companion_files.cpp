#include "core/model/companion_files.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include <fmt/format.h>

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

// What leads out of the folders, or in circles, is not there for whoever looks.
Result<SourcePlace> told_as_absent(Result<SourcePlace> found) {
  if (!found && (found.error().kind == ErrorKind::kInvalidModel || found.error().sys_errno == ELOOP)) {
    found.error().kind = ErrorKind::kNotFound;
  }
  return found;
}

}  // namespace

CompanionFiles::CompanionFiles(SourceFolders folders, std::string model_path, std::string weights_folder,
                               std::shared_ptr<const MountTable> mounts)
    : folders_(std::move(folders)),
      model_path_(std::move(model_path)),
      weights_folder_(std::move(weights_folder)),
      mounts_(std::move(mounts)) {}

bool CompanionFiles::is_left_out(const std::string& relative) const {
  const std::string_view folder = folder_of(relative);
  const std::string_view name = std::string_view(relative).substr(folder.empty() ? 0 : folder.size() + 1);
  if (folder.empty() && name.starts_with('.')) {
    return true;
  }
  return (folder.empty() || folder == weights_folder_) && holds_weights_of_some_framework(name);
}

// By the table, before anything is asked: such a mount may be dead, or served by ourselves.
bool CompanionFiles::is_qcache(const std::string& path) const {
  return mounts_ && mounts_->is_qcache(path);
}

bool CompanionFiles::is_qcache(const SourcePlace& place) const {
  return mounts_ && place.stat.is_directory() && mounts_->is_qcache_device(place.stat.device);
}

Result<SourcePlace> CompanionFiles::look_at_folder(const std::string& relative) const {
  const std::string path = relative.empty() ? model_path_ : model_path_ + '/' + relative;
  auto folder = told_as_absent(folders_.look(path));
  if (folder && (!folder->stat.is_directory() || folder->real != path)) {
    return not_found(relative);
  }
  return folder;
}

Result<SourcePlace> CompanionFiles::look_in(const SourcePlace& folder, const std::string& name,
                                            const std::string& relative) const {
  if (is_left_out(relative) || is_qcache(folder.real + '/' + name)) {
    return not_found(relative);
  }
  auto found = told_as_absent(folders_.look_in(folder, name));
  if (!found) {
    return found;
  }
  if (is_qcache(*found)) {
    return not_found(relative);
  }
  const bool linked_folder = found->stat.is_directory() && found->real != folder.real + '/' + name;
  if (linked_folder || (!found->stat.is_directory() && !found->stat.is_regular())) {
    return not_found(relative);
  }
  return found;
}

Result<std::vector<CompanionEntry>> CompanionFiles::list(const std::string& relative) const {
  QCACHE_TRY_ASSIGN(const SourcePlace folder, look(relative));
  if (!folder.stat.is_directory()) {
    return not_found(relative);
  }
  QCACHE_TRY_ASSIGN(std::vector<std::string> names, folders_.list(folder));
  std::sort(names.begin(), names.end());
  std::vector<CompanionEntry> entries;
  const std::string prefix = relative.empty() ? relative : relative + '/';
  for (std::string& name : names) {
    if (const auto found = look_in(folder, name, prefix + name)) {
      entries.push_back({std::move(name), found->stat.is_directory()});
    }
  }
  return entries;
}

Result<SourcePlace> CompanionFiles::look(const std::string& relative) const {
  if (relative.empty()) {
    return look_at_folder(relative);
  }
  if (!is_plain_path(relative)) {
    return not_found(relative);
  }
  const std::string path = model_path_ + '/' + relative;
  if (!is_left_out(relative) && !is_qcache(path)) {
    auto found = folders_.look(path);
    if (found && found->real == path && !is_qcache(*found) &&
        (found->stat.is_directory() || found->stat.is_regular())) {
      return found;
    }
  }
  // There is a link on the way, or nothing.
  const std::string parent(folder_of(relative));
  QCACHE_TRY_ASSIGN(const SourcePlace folder, look_at_folder(parent));
  return look_in(folder, relative.substr(parent.empty() ? 0 : parent.size() + 1), relative);
}

Result<SourceFile> CompanionFiles::open(const std::string& relative) const {
  QCACHE_TRY_ASSIGN(const SourcePlace place, look(relative));
  return folders_.open(place, model_path_ + '/' + relative);
}

}  // namespace qcache

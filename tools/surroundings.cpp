#include "tools/surroundings.h"

#include <cstdlib>

#include <fmt/format.h>

#include "core/model/text.h"
#include "tools/cache_choice.h"
#include "tools/human_text.h"
#include "tools/mount_attributes.h"
#include "tools/suggestion.h"

namespace qcache {
namespace {

std::string variable(const char* name) {
  const char* const value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nobody sets variables
  return value == nullptr ? "" : value;
}

// As huggingface_hub chooses it.
std::string hub_cache() {
  if (const std::string chosen = variable("HF_HUB_CACHE"); !chosen.empty()) {
    return chosen;
  }
  if (const std::string home = variable("HF_HOME"); !home.empty()) {
    return home + "/hub";
  }
  const std::string cache = variable("XDG_CACHE_HOME");
  return (cache.empty() ? variable("HOME") + "/.cache" : cache) + "/huggingface/hub";
}

}  // namespace

Result<NamedFiles> Surroundings::resolve(const NameWords& words) const {
  QCACHE_TRY_ASSIGN(NamedFiles names, resolve_names(env(), words, mounts_));
  const auto* named = std::get_if<ModelName>(&names.what);
  if (named == nullptr) {
    return names;
  }
  QCACHE_TRY_ASSIGN(std::optional<MountPath> place, find_in_mounts(env(), names, mounts_.running, cache_dir_));
  if (place) {
    names.what = std::move(*place);
    return names;
  }
  for (const std::string& folder : {named->name, hub_cache() + "/models--" + named->name}) {
    if (const auto stat = env().stat(folder); stat && stat->is_directory()) {
      QCACHE_TRY_ASSIGN(names.what, look_into_folder(env(), folder));
      return names;
    }
  }
  return names;
}

Result<std::string> Surroundings::cache_directory() const {
  return choose_cache_directory(context_, cache_dir_, mounts_);
}

Result<std::string> Surroundings::cache_directory_of(const NamedFiles& names) const {
  if (!cache_dir_.empty()) {
    return cache_directory();
  }
  if (std::string implied = names.cache_directory(); !implied.empty()) {
    QCACHE_TRY(refuse_unusable_mount(implied, mounts_));
    return implied;
  }
  QCACHE_TRY_ASSIGN(std::optional<MountPath> place, find_in_mounts(env(), names, mounts_.running, ""));
  if (const auto* folder = std::get_if<FolderPath>(&names.what); folder != nullptr && !folder->name.empty()) {
    QCACHE_TRY_ASSIGN(place, mount_showing(*folder));
  }
  if (!place) {
    return cache_directory();
  }
  QCACHE_TRY(refuse_to_guess(mounts_));
  const std::string& directory = place->mount.cache_directory;
  if (const auto chosen = directory_of_environment(); chosen && !is_same_folder(*chosen, directory)) {
    return fail(ErrorKind::kInvalidArgument,
                fmt::format("$QWEN_CACHE is {}, but {}, where {} is, uses {}: say which with --cache-dir", *chosen,
                            place->mount.mount_point, in_quotes(names.text), directory));
  }
  return directory;
}

std::vector<std::string> Surroundings::every_cache_directory() const {
  if (const auto one = cache_directory()) {
    return {*one};
  }
  std::vector<std::string> all;
  for (const RunningMount& mount : one_of_each_cache(own_mounts(mounts_))) {
    all.push_back(mount.cache_directory);
  }
  return all;
}

bool Surroundings::counts(const RunningMount& mount) const {
  return cache_dir_.empty() || is_same_folder(mount.cache_directory, cache_dir_);
}

Result<std::optional<MountPath>> Surroundings::mount_showing(const FolderPath& folder) const {
  std::vector<MountPath> places;
  for (const RunningMount& mount : mounts_.running) {
    if (!counts(mount)) {
      continue;
    }
    const auto names = env().list(mount.mount_point);
    for (const std::string& name : names.value_or(std::vector<std::string>())) {
      MountPath place{mount, {name}};
      if (name.ends_with(folder.name) && attribute_or_empty(place.full_path(), "source") == folder.path) {
        places.push_back(std::move(place));
        break;
      }
    }
  }
  return the_one_meant(std::move(places), folder.name);
}

Error Surroundings::unknown_model(const std::string& name, const RunningMount* place) const {
  std::vector<std::string> known;
  std::vector<RunningMount> asked = mounts_.running;
  std::erase_if(asked, [&](const RunningMount& mount) {
    return place != nullptr ? mount.mount_point != place->mount_point : !counts(mount);
  });
  for (const RunningMount& mount : asked) {
    const auto names = env().list(mount.mount_point);
    for (const std::string& shown : names.value_or(std::vector<std::string>())) {
      if (!shown.starts_with('.')) {
        known.push_back(shown);
      }
    }
  }
  std::string message = fmt::format("there is no model {}", in_quotes(name));
  if (const std::string guess = did_you_mean(name, known); !guess.empty()) {
    message += guess;
  } else if (asked.empty()) {
    message += fmt::format(", as no mount{} is running: name the model's folder, or mount it with 'qcache mount'",
                           cache_dir_.empty() ? "" : " with the cache directory " + printable(cache_dir_));
  } else {
    message += fmt::format(" in {}: 'ls' there shows the models; one that is not mounted is named by its folder",
                           printable(asked[0].mount_point));
  }
  if (!mounts_.dead.empty()) {
    message += fmt::format(" (the mount on {0} is dead: 'qcache unmount {0}' clears it)", printable(mounts_.dead[0]));
  }
  return Error{ErrorKind::kNotFound, 0, std::move(message)};
}

CLI::Option* add_name_options(CLI::App& command, NameWords& words, const std::string& model_help) {
  CLI::Option* const model = command.add_option("MODEL", words.model, model_help)->check(not_empty());
  command.add_option("DTYPE", words.dtype, "Only this dtype of the model")->check(not_empty());
  command.add_option("FILE", words.file, "Only this rank or file: 16, 0.bin, 0/model.safetensors")->check(not_empty());
  return model;
}

Error no_weights(const FolderPath& folder) {
  return Error{
      ErrorKind::kNotFound, 0,
      fmt::format("{} holds no weights (*.safetensors, or *.bin, *.pt, *.pth from torch)", in_quotes(folder.root))};
}

Error of_model(Error error) {
  error.kind = error.kind == ErrorKind::kPermission ? ErrorKind::kInvalidModel : error.kind;
  return error;
}

}  // namespace qcache

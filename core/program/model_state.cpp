#include "core/program/model_state.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <thread>
#include <utility>

#include "core/model/model_finder.h"
#include "core/model/source_folders.h"

namespace qcache {

std::string model_name_of(Env& env, const std::string& path) {
  const FoundModels found = find_models(env, {path});
  const auto model = std::ranges::find(found.models, path, &FoundModel::path);
  return model != found.models.end() ? model->name : path.substr(path.find_last_of('/') + 1);
}

Result<std::shared_ptr<const SourceModel>> read_settled_model(Env& env, const std::string& path,
                                                              const std::string& name) {
  constexpr int kMaxAttempts = 3;
  std::optional<SourceIdentity> before;
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    // A program reads what is its user's own, with his rights, and shows it to nobody: links may lead anywhere.
    auto model = read_source_model(env, SourceFolders(env, {"/"}), path, name);
    if (!model && model.error().kind == ErrorKind::kNotFound) {
      return std::shared_ptr<const SourceModel>();
    }
    if (!model) {
      return fail(std::move(model).error());
    }
    if (before) {
      model->identity.go_on_from(*before);
    }
    if (model->identity.settled()) {
      return std::make_shared<const SourceModel>(std::move(*model));
    }
    std::this_thread::sleep_for(std::chrono::nanoseconds(model->identity.settles_in_ns(env) + 1'000'000));
    before = std::move(model->identity);
  }
  return fail(ErrorKind::kSourceChanged, "the files in " + path + " are still being written: try again later");
}

}  // namespace qcache

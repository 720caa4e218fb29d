#include "tools/surroundings.h"

#include <fmt/format.h>

#include "core/model/text.h"
#include "tools/cache_choice.h"

namespace qcache {

Result<Surroundings> Surroundings::look_around(CommandContext& context, const std::string& cache_dir_option) {
  Surroundings out{context, find_mounts(context), {}};
  QCACHE_TRY_ASSIGN(out.cache_directory, choose_cache_directory(cache_dir_option, out.mounts));
  return out;
}

Result<NamedFiles> Surroundings::resolve(const NameWords& words) const {
  QCACHE_TRY_ASSIGN(NamedFiles names, resolve_names(context.env, words, mounts));
  const auto* named = std::get_if<ModelName>(&names.what);
  if (named == nullptr) {
    return names;
  }
  if (auto place = find_in_mounts(context.env, names, mounts.running)) {
    names.what = std::move(*place);
  } else if (const auto stat = context.env.stat(named->name); stat && stat->is_directory()) {
    QCACHE_TRY_ASSIGN(names.what, look_into_folder(context.env, named->name));
  }
  return names;
}

Error unknown_model(const std::string& name) {
  return Error{
      ErrorKind::kNotFound, 0,
      fmt::format("no running mount shows a model {}: mount its folder, or name the folder itself", in_quotes(name))};
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

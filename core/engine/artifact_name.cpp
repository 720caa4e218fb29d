#include "core/engine/artifact_name.h"

#include <utility>

#include <fmt/format.h>

#include "core/model/source_encoding.h"
#include "core/quant/factors.h"
#include "core/store/cache_directory.h"

namespace qcache {
std::string ArtifactName::virtual_path() const {
  return fmt::format("{}/{}/{}", model, scheme->name(), file());
}

ArtifactName weights_of_folder(std::string model, const Scheme& scheme, uint32_t rank) {
  const Container& weights = container_folder_weights();
  return {std::move(model), &scheme, weights.rank_behind(rank), &weights};
}

std::optional<ArtifactPath> parse_artifact_path(std::string_view path) {
  // A model's name has no slash in it, but may have all else.
  const size_t model_end = path.find('/');
  const size_t dtype_end = model_end == std::string_view::npos ? model_end : path.find('/', model_end + 1);
  if (dtype_end == std::string_view::npos) {
    return std::nullopt;
  }
  const auto file = parse_container_path(path.substr(dtype_end + 1));
  if (!file) {
    return std::nullopt;
  }
  return ArtifactPath{std::string(path.substr(0, model_end)),
                      std::string(path.substr(model_end + 1, dtype_end - model_end - 1)), file->rank, file->container};
}

std::string base_file_name_of(const ArtifactName& name, std::string_view model_path) {
  return artifact_file_name(model_path, name.scheme->name(), name.rank, name.container->suffix);
}

std::string base_file_name_of(const ArtifactPath& path, std::string_view model_path) {
  return artifact_file_name(model_path, path.dtype, path.rank, path.container->suffix);
}

Sha256Digest method_of(const ArtifactName& name) {
  // Raised whenever a container's bytes change for the same tensors.
  constexpr uint32_t kLayoutVersion = 3;
  Sha256 hash;
  hash.update(fmt::format("qcache recipe\n{} {} {} {} {}\n", name.scheme->name(), name.scheme->version(), name.rank,
                          name.container->suffix, kLayoutVersion));
  if (name.rank > 0) {
    hash.update(fmt::format("factors {}\n", kFactorVersion));
  }
  if (const SourceView& view = name.container->view(); &view != &view_as_is()) {
    hash.update(fmt::format("view {} {}\n", view.name, view.version));
  }
  return hash.finish();
}

Sha256Digest recipe_of(const ArtifactName& name, const SourceModel& model) {
  Sha256 hash;
  const Sha256Digest method = method_of(name);
  hash.update(std::as_bytes(std::span(method)));
  const Sha256Digest source = model.identity.digest();
  hash.update(std::as_bytes(std::span(source)));
  for (const SourceEncoding* const encoding : model.encodings) {
    hash.update(fmt::format("encoding {} {}\n", encoding->name(), encoding->version()));
  }
  return hash.finish();
}

Result<bool> is_made_of(const Record& record, const SourceModel& model) {
  const auto path = parse_artifact_path(record.virtual_path);
  const Scheme* const scheme = find_scheme(record.dtype);
  if (!path || scheme == nullptr) {
    return fail(ErrorKind::kUnsupported, fmt::format("a newer qcache made {} in dtype '{}', which this one does not "
                                                     "know",
                                                     record.virtual_path, record.dtype));
  }
  return recipe_of(ArtifactName{path->model, scheme, record.rank, path->container}, model) == record.recipe;
}

}  // namespace qcache

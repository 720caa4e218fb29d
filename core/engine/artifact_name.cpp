#include "core/engine/artifact_name.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include <fmt/format.h>

#include "core/quant/factors.h"
#include "core/store/cache_directory.h"

namespace qcache {
namespace {

// What follows the rank.
constexpr std::string_view kWeightsPath = "/model.safetensors";
constexpr std::string_view kAdapterPath = "/lora/adapter_model.safetensors";
constexpr std::string_view kPipelineWeights = "/diffusion_pytorch_model.safetensors";  // after the component
constexpr std::string_view kPipelineAdapterPath = "/lora/pytorch_lora_weights.safetensors";

}  // namespace

std::string ArtifactName::virtual_path() const {
  return fmt::format("{}/{}/{}", model, scheme->name(), file());
}

std::string ArtifactName::file() const {
  const auto in_folder = [this](std::string_view below) { return fmt::format("{}{}", rank, below); };
  switch (kind) {
    case ArtifactKind::kSafetensors:
      return in_folder(component.empty() ? std::string(kWeightsPath)
                                         : fmt::format("/{}{}", component, kPipelineWeights));
    case ArtifactKind::kAdapter:
      return in_folder(component.empty() ? kAdapterPath : kPipelineAdapterPath);
    case ArtifactKind::kCheckpoint:
      break;
  }
  return in_folder(".bin");
}

std::string_view extension_of(ArtifactKind kind) {
  switch (kind) {
    case ArtifactKind::kSafetensors:
      return ".safetensors";
    case ArtifactKind::kAdapter:
      return ".lora.safetensors";
    case ArtifactKind::kCheckpoint:
      break;
  }
  return ".bin";
}

std::optional<ArtifactPath> parse_artifact_path(std::string_view path) {
  // A model's name has no slash in it, but may have all else.
  const size_t model_end = path.find('/');
  const size_t dtype_end = model_end == std::string_view::npos ? model_end : path.find('/', model_end + 1);
  if (dtype_end == std::string_view::npos) {
    return std::nullopt;
  }
  ArtifactPath out;
  out.model = path.substr(0, model_end);
  out.dtype = path.substr(model_end + 1, dtype_end - model_end - 1);
  const std::optional<ArtifactFile> file = parse_artifact_file(path.substr(dtype_end + 1));
  if (!file) {
    return std::nullopt;
  }
  out.rank = file->rank;
  out.kind = file->kind;
  return out;
}

std::optional<ArtifactFile> parse_artifact_file(std::string_view path) {
  const auto of_kind = [](std::optional<uint32_t> rank, ArtifactKind kind) {
    return rank ? std::optional(ArtifactFile{*rank, kind}) : std::nullopt;
  };
  const size_t slash = path.find('/');
  if (slash == std::string_view::npos) {
    return of_kind(rank_of_file_name(path), ArtifactKind::kCheckpoint);
  }
  const std::string_view below = path.substr(slash);
  const std::optional<uint32_t> rank = parse_rank(path.substr(0, slash));
  if (below == kAdapterPath || below == kPipelineAdapterPath) {
    return of_kind(rank, ArtifactKind::kAdapter);
  }
  const bool in_component = below.ends_with(kPipelineWeights) && below.find('/', 1) == below.rfind('/');
  if (below == kWeightsPath || in_component) {
    return of_kind(rank, ArtifactKind::kSafetensors);
  }
  return std::nullopt;
}

std::optional<uint32_t> rank_of_file_name(std::string_view name) {
  constexpr std::string_view kExtension = ".bin";
  if (!name.ends_with(kExtension)) {
    return std::nullopt;
  }
  return parse_rank(name.substr(0, name.size() - kExtension.size()));
}

std::optional<uint32_t> parse_rank(std::string_view digits) {
  const bool leading_zero = digits.size() > 1 && digits[0] == '0';
  const bool all_digits = std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
  uint32_t rank = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), rank);
  if (digits.empty() || leading_zero || !all_digits || parsed.ec != std::errc() || rank > INT32_MAX) {
    return std::nullopt;
  }
  return rank;
}

std::string base_file_name_of(const ArtifactName& name, std::string_view model_path) {
  return artifact_file_name(model_path, name.scheme->name(), name.rank, extension_of(name.kind));
}

std::string base_file_name_of(const ArtifactPath& path, std::string_view model_path) {
  return artifact_file_name(model_path, path.dtype, path.rank, extension_of(path.kind));
}

Sha256Digest method_of(const ArtifactName& name) {
  // Raised whenever a container's bytes change for the same tensors.
  constexpr uint32_t kLayoutVersion = 3;
  Sha256 hash;
  hash.update(fmt::format("qcache recipe\n{} {} {} {} {}\n", name.scheme->name(), name.scheme->version(), name.rank,
                          extension_of(name.kind), kLayoutVersion));
  if (name.rank > 0) {
    hash.update(fmt::format("factors {}\n", kFactorVersion));
  }
  return hash.finish();
}

Sha256Digest recipe_of(const ArtifactName& name, const SourceModel& model) {
  Sha256 hash;
  const Sha256Digest method = method_of(name);
  hash.update(std::as_bytes(std::span(method)));
  const Sha256Digest source = model.identity.digest();
  hash.update(std::as_bytes(std::span(source)));
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
  return recipe_of(ArtifactName{path->model, scheme, record.rank, path->kind}, model) == record.recipe;
}

}  // namespace qcache

#include "core/layout/model_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/digest.h"
#include "core/model/config_text.h"
#include "core/quant/module_lists.h"
#include "core/quant/tensor_selection.h"

namespace qcache {
namespace {

using nlohmann::ordered_json;

constexpr std::string_view kDescriptionFile = "qcache.json";

/// The largest mixtures of experts have 70,000 of 60 bytes. Loaders compare every name that a configuration lists with
/// every module.
constexpr size_t kMaxModules = 250'000;
/// Of all their names, which stand in several texts of the folder.
constexpr size_t kMaxModuleBytes = size_t{16} << 20;

std::string config_json(const SourceModel& model, const Scheme& scheme, const std::string& quantization_config) {
  std::vector<JsonMember> members;
  const std::string dtype = fmt::format("\"{}\"", torch_name(scheme.dense_dtype(model)));
  for (const char* const key : {"dtype", "torch_dtype"}) {  // the new and the old name of one thing
    if (has_member(model.config_text, key)) {
      members.push_back({key, dtype});
    }
  }
  if (members.empty() && model.component.empty()) {  // diffusers complains about names that it does not know
    members.push_back({"torch_dtype", dtype});
  }
  if (!quantization_config.empty()) {
    members.push_back({"quantization_config", quantization_config});
  }
  // The model's reader has accepted this text already.
  return with_members(model.config_text, members).value_or(std::string());
}

std::string qcache_json(const SourceModel& model, const Scheme& scheme, uint32_t rank, const StoredModel& stored) {
  ordered_json files = ordered_json::array();
  for (const SourceFileIdentity& file : model.identity.files) {
    if (!file.absent()) {
      files.push_back({{"name", file.path.substr(file.path.rfind('/') + 1)},
                       {"size", file.size_bytes},
                       {"header_sha256", to_hex(file.header_digest)}});
    }
  }
  const ordered_json description = {
      {"qcache", 1},         {"dtype", scheme.name()},     {"scheme_version", scheme.version()},   {"rank", rank},
      {"model", model.name}, {"source", std::move(files)}, {"quantized", stored.quantized_modules}};
  return description.dump(2, ' ', false, ordered_json::error_handler_t::replace) + '\n';
}

/// Adds the modules, by whether they are quantized; with the output heads that have no tensor.
void list_modules(const Scheme& scheme, StoredModel& out) {
  const SourceModel& model = out.model;
  for (const TensorInfo& tensor : model.tensors) {
    const std::string_view module = module_of_weight(tensor);
    if (module.empty()) {
      continue;
    }
    if (scheme.encoding(model, out.choices, tensor).quantized) {
      out.quantized_modules.emplace_back(module);
    } else if (tensor.shape.size() == 2) {
      out.dense_modules.emplace_back(module);
    }
  }
  for (std::string& head : absent_output_heads(model, out.quantized_modules)) {
    out.dense_modules.push_back(std::move(head));
  }
}

}  // namespace

std::optional<std::string> why_not_served(const SourceModel& model, const Scheme& scheme) {
  if (auto refusal = scheme.refusal(model)) {
    return refusal;
  }
  if (!model.component.empty() && !scheme.loaders().quantization_config(
                                      StoredModel{model, scheme.choose(model), {}, {}}, FolderReader::kDiffusers)) {
    return fmt::format("{} cannot serve a diffusers pipeline: diffusers does not load this format", scheme.name());
  }
  return std::nullopt;
}

Result<ModelFolder> plan_model_folder(const SourceModel& model, const Scheme& scheme, uint32_t rank,
                                      const std::string& base_path) {
  const FolderReader reader = model.component.empty() ? FolderReader::kTransformers : FolderReader::kDiffusers;
  StoredModel stored{model, scheme.choose(model), {}, {}};
  size_t modules = 0;
  size_t module_bytes = 0;
  for (const TensorInfo& tensor : model.tensors) {
    const std::string_view module = module_of_weight(tensor);
    modules += module.empty() ? 0U : 1U;
    module_bytes += module.size();
  }
  const LoaderFamily& loaders = scheme.loaders();
  const bool names_modules = loaders.quantization_config(stored, reader) != "" || !loaders.files(stored).empty();
  if (names_modules && (modules > kMaxModules || module_bytes > kMaxModuleBytes)) {
    return fail(
        ErrorKind::kUnsupported,
        fmt::format("no folder of model '{}' in dtype '{}': it has {} modules, whose names have {} bytes, and a "
                    "config.json that names more than {}, or in more than {} bytes, is of no use to a loader; "
                    "use the .bin file",
                    model.name, scheme.name(), modules, module_bytes, kMaxModules, kMaxModuleBytes));
  }
  if (names_modules) {
    list_modules(scheme, stored);
  }
  const std::optional<std::string> quantization_config = loaders.quantization_config(stored, reader);
  if (!quantization_config) {
    return fail(
        ErrorKind::kUnsupported,
        fmt::format("no folder of model '{}' in dtype '{}': {} could not tell its dense modules from the "
                    "quantized ones; use the .bin file",
                    model.name, scheme.name(), reader == FolderReader::kDiffusers ? "diffusers" : "transformers"));
  }
  ModelFolder folder;
  folder.component = model.component;
  const auto add = [&](const std::string& subfolder, std::vector<FolderFile> files) {
    for (FolderFile& file : files) {
      file.name = subfolder.empty() ? file.name : fmt::format("{}/{}", subfolder, file.name);
      folder.files.push_back(std::move(file));
    }
  };
  std::vector<FolderFile> beside_weights = loaders.files(stored);
  if (!model.config_text.empty()) {
    beside_weights.push_back({"config.json", config_json(model, scheme, *quantization_config)});
  }
  beside_weights.push_back({std::string(kDescriptionFile), qcache_json(model, scheme, rank, stored)});
  add(model.component, std::move(beside_weights));
  if (rank > 0) {
    folder.own_folders.emplace_back(kAdapterFolder);
    add(folder.own_folders.back(), plan_adapter_folder(stored, rank, base_path));
  }
  std::sort(folder.files.begin(), folder.files.end(),
            [](const FolderFile& a, const FolderFile& b) { return a.name < b.name; });
  return folder;
}

bool is_description(const FolderFile& file) {
  return file.name.substr(file.name.rfind('/') + 1) == kDescriptionFile;
}

}  // namespace qcache

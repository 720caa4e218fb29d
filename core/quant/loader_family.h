#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/model/source_model.h"

namespace qcache {

/// What a scheme decides once for a whole model.
struct ModelChoices {
  uint64_t group_elements = 0;  ///< elements per scale along a row, in group-wise schemes; 0 elsewhere
};

/// The libraries that read a model folder, as far as its config.json must differ for them.
enum class FolderReader : uint8_t {
  kTransformers,  ///< transformers, vLLM, SGLang, sentence-transformers
  kDiffusers,     ///< one component of a diffusers pipeline
};

/// A planned model, as far as its config must tell of it.
struct StoredModel {
  const SourceModel& model;
  ModelChoices choices;
  std::vector<std::string> quantized_modules;  ///< in the model's order
  /// Linear modules that stay dense, and output heads without a tensor that share the embedding's.
  std::vector<std::string> dense_modules;
};

/// A small text file that stands in the folder beside the weights.
struct FolderFile {
  std::string name;
  std::string text;
  bool foretells_load = false;  ///< nobody but who is about to load the weights reads it
};

/// What one family of loaders wants beside the weights of a scheme: the texts by which it recognizes a stored model.
/// What is written for whom is in docs/SCHEMES.md. Constants that live as long as the process; every function is pure,
/// and may be called from any thread. To add a family, write `core/quant/loaders/<name>.h` and `.cpp`, and let schemes
/// return it.
class LoaderFamily {
 public:
  LoaderFamily() = default;
  virtual ~LoaderFamily() = default;
  LoaderFamily(const LoaderFamily&) = delete;
  LoaderFamily& operator=(const LoaderFamily&) = delete;

  /// The `quantization_config` of config.json that makes `reader` load the stored model: a JSON object, or empty where
  /// it needs none. Nothing where the reader cannot load it at all.
  [[nodiscard]] virtual std::optional<std::string> quantization_config(const StoredModel& stored,
                                                                       FolderReader reader) const = 0;
  /// What else the folder holds.
  [[nodiscard]] virtual std::vector<FolderFile> files(const StoredModel& /*stored*/) const { return {}; }
};

}  // namespace qcache

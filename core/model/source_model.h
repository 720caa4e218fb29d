#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base/env.h"
#include "core/base/result.h"
#include "core/model/shared_access.h"
#include "core/model/source_folders.h"
#include "core/model/source_identity.h"
#include "core/model/tensor.h"

namespace qcache {

/// What a model's config.json says that decides how its weights may be stored. Unknown or missing
/// information stays empty: rules that need it then leave tensors dense.
struct ModelFacts {
  bool has_config = false;
  std::string config_problem;  ///< why config.json could not be used, empty where it could or is absent
  std::string model_type;      ///< "qwen2", "bert"; empty where unknown
  std::vector<std::string> architectures;
  std::optional<DType> declared_dtype;  ///< `dtype` or `torch_dtype`
  bool tied_embeddings = false;
  bool mixture_of_experts = false;  ///< by the config, or by tensor names with ".experts."
  std::string quant_method;         ///< set where the weights are quantized already, such as "awq" or "float8 weights"
};

/// A model as found on disk, from headers only: no tensor data has been read.
///
/// Always holds: tensor names are unique; all elements of every tensor lie inside its file; tensors are ordered by
/// file, then by the offset of their first element. Tensors of a torch checkpoint may share bytes, wholly (tied
/// weights) or in part, and may have strides: each is a tensor of its own all the same, since who reads the model
/// expects every name that was saved. Reading is all that is done with source bytes, so sharing them harms nobody.
/// Immutable after it is built, so it may be shared between threads.
struct SourceModel {
  std::string name;                ///< in the mount: "Qwen2.5-0.5B", "org--name"
  std::string path;                ///< absolute folder, links resolved
  std::string component;           ///< subfolder with the weights and their config: of a pipeline; else empty
  std::vector<std::string> files;  ///< absolute paths of the weight files, each at index TensorInfo::file
  std::vector<TensorInfo> tensors;
  ModelFacts facts;
  std::vector<const SourceEncoding*> encodings;  ///< of its tensors, but the plain one; part of the identity
  std::string config_text;           ///< config.json as it was read; empty where there is none that can be used
  std::vector<SourceSpot> spots;     ///< of the files that were read: weights (as `files`), then index and config.json
  std::vector<std::string> folders;  ///< its files may be read from these (SourceFolders)
  SourceIdentity identity;           ///< files first (same order as `files`), then index and config.json

  /// The dtype most weight bytes have among wide floats, or the declared one where there are none: what the
  /// layouts call "model dtype".
  [[nodiscard]] DType model_dtype() const;
  [[nodiscard]] uint64_t weight_bytes() const;
};

/// Reads the headers of the model in folder `path`: safetensors files or torch checkpoints, those that
/// choose_weight_files (weight_files.h) chooses.
///
/// Fails with kInvalidModel and a sentence naming the file and the fault where a header is malformed, a shard is
/// missing or the files contradict each other (the index against its shards, a tensor in two files); with
/// kNotFound where the folder holds no weights; with kSourceChanged where a file changed while it was read (the
/// same call may work later). Links are followed as SourceFolders::of_model() says; one that leads elsewhere, also of
/// config.json, is kInvalidModel: a model served without what its author meant to be in it would be another one.
///
/// The identity also holds files that are absent and would matter if they came: config.json, and those that
/// come before the chosen weights. One more `*.safetensors` or `*.bin` in a folder without an index shows only when the
/// folder is read again: its own mtime would change with every file that is no part of the model.
/// Cost: two reads per safetensors file, of its header; about five per torch checkpoint and one small one per storage.
Result<SourceModel> read_source_model(Env& env, const SourceFolders& folders, const std::string& path,
                                      const std::string& name);
/// The same where no folders of models are known: `path` is the only one.
Result<SourceModel> read_source_model(Env& env, const std::string& path, const std::string& name);

}  // namespace qcache

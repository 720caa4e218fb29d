#include "core/program/program_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string_view>
#include <utility>

#include "core/base/page_buffer.h"
#include "core/engine/memory_source.h"
#include "core/engine/whole_file.h"
#include "core/model/model_facts.h"
#include "core/model/source_folders.h"
#include "core/model/text.h"
#include "core/program/model_state.h"
#include "core/store/cache_directory.h"

namespace qcache {
namespace {

// Whole elements of every dtype.
constexpr uint64_t kPieceBytes = uint64_t{1} << 20;
constexpr uint64_t kMaxConfigBytes = uint64_t{4} << 20;

tl::unexpected<Error> refuse(std::string message) {
  return fail(ErrorKind::kInvalidArgument, std::move(message));
}

/// The tensors of a program as a source model, with their memory.
struct Held {
  SourceModel model;
  std::vector<std::span<const std::byte>> memory;  // one "file" per tensor

  [[nodiscard]] std::unique_ptr<SourceReader> reader(Env& env, Stats& stats) const {
    return std::make_unique<MemorySource>(env, std::make_shared<const SourceModel>(model), memory, stats);
  }
};

/// Reads a tensor piece by piece, in one buffer.
class Pieces {
 public:
  Pieces(const SourceReader& reader, const TensorInfo& tensor) : reader_(reader), tensor_(tensor) {}

  /// The next piece, valid until the one after it; empty at the end.
  Result<std::span<const std::byte>> next() {
    const uint64_t size = std::min(kPieceBytes, tensor_.data.size - offset_);
    buffer_.resize(size);
    QCACHE_TRY(reader_.read(tensor_, offset_, buffer_));
    offset_ += size;
    return std::span<const std::byte>(buffer_);
  }

 private:
  const SourceReader& reader_;
  const TensorInfo& tensor_;
  uint64_t offset_ = 0;
  PageBuffer buffer_;
};

/// In the order of their names, so that the same tensors make the same file however the program keeps them.
Result<Held> hold(const std::vector<ProgramTensor>& tensors) {
  std::map<std::string_view, const ProgramTensor*> by_name;
  for (const ProgramTensor& tensor : tensors) {
    if (!is_utf8(tensor.name)) {
      return refuse(fmt::format("the tensor name {} is not UTF-8", in_quotes(tensor.name)));
    }
    if (!by_name.emplace(tensor.name, &tensor).second) {
      return refuse(fmt::format("the model has two tensors called {}", in_quotes(tensor.name)));
    }
  }
  if (by_name.empty()) {
    return refuse("the model has no tensors to be saved");
  }
  Held held;
  for (const auto& [name, tensor] : by_name) {
    TensorInfo info{.name = tensor->name,
                    .dtype = tensor->dtype,
                    .shape = tensor->shape,
                    .file = static_cast<uint32_t>(held.memory.size()),
                    .data = {},
                    .strides = tensor->strides};
    info.data.size = info.element_count() * item_bytes(info.dtype);
    held.model.tensors.push_back(std::move(info));
    held.memory.push_back(tensor->bytes);
  }
  return held;
}

std::string described(const TensorInfo& tensor) {
  return fmt::format("{} [{}]", torch_name(tensor.dtype), fmt::join(tensor.shape, ", "));
}

using TensorsByName = std::map<std::string_view, const TensorInfo*>;

TensorsByName by_name(const SourceModel& model) {
  TensorsByName tensors;
  for (const TensorInfo& tensor : model.tensors) {
    tensors.emplace(tensor.name, &tensor);
  }
  return tensors;
}

/// Whether the tensor is one more name of a tensor that the folder has. Most formats keep one name of tied weights.
bool is_tied(const Held& held, const TensorInfo& tensor, const TensorsByName& in_folder) {
  const auto is_same = [&](const TensorInfo& other) {
    return held.memory[other.file].data() == held.memory[tensor.file].data() && other.dtype == tensor.dtype &&
           other.shape == tensor.shape && other.strides == tensor.strides;
  };
  return std::ranges::any_of(held.model.tensors,
                             [&](const TensorInfo& other) { return is_same(other) && in_folder.contains(other.name); });
}

Status check_described_alike(const Held& held, const SourceModel& folder) {
  const TensorsByName in_folder = by_name(folder);
  TensorsByName wanted = in_folder;
  for (const TensorInfo& tensor : held.model.tensors) {
    const auto found = wanted.find(tensor.name);
    if (found == wanted.end()) {
      if (is_tied(held, tensor, in_folder)) {
        continue;
      }
      return refuse(
          fmt::format("the program's model has a tensor {} that the model in {} has not: save it for a folder of its "
                      "own",
                      in_quotes(tensor.name), folder.path));
    }
    const TensorInfo& source = *found->second;
    if (source.dtype != tensor.dtype || source.shape != tensor.shape) {
      return refuse(fmt::format("tensor {} is {} in the program and {} in {}: save what was loaded, before it is cast",
                                in_quotes(tensor.name), described(tensor), described(source), folder.path));
    }
    wanted.erase(found);
  }
  if (!wanted.empty()) {
    return refuse(fmt::format("the program's model lacks tensor {}{} of the model in {}: save all of it",
                              in_quotes(wanted.begin()->first),
                              wanted.size() == 1 ? "" : fmt::format(" and {} more", wanted.size() - 1), folder.path));
  }
  return {};
}

Result<bool> equal(Pieces a, Pieces b) {
  for (;;) {
    QCACHE_TRY_ASSIGN(const std::span<const std::byte> piece, a.next());
    QCACHE_TRY_ASSIGN(const std::span<const std::byte> other, b.next());
    if (!std::ranges::equal(piece, other)) {
      return false;
    }
    if (piece.empty()) {
      return true;
    }
  }
}

/// Whether the program's tensors are those of the folder, byte for byte.
Status check_same(Env& env, const Held& held, const std::shared_ptr<const SourceModel>& folder) {
  QCACHE_TRY(check_described_alike(held, *folder));
  Stats stats;
  const std::unique_ptr<SourceReader> ours = held.reader(env, stats);
  QCACHE_TRY_ASSIGN(const std::unique_ptr<SourceReader> theirs, SourceReader::open(env, folder, stats));
  const TensorsByName held_by_name = by_name(held.model);
  for (const TensorInfo& source : folder->tensors) {
    QCACHE_TRY_ASSIGN(const bool same, equal(Pieces(*ours, *held_by_name.at(source.name)), Pieces(*theirs, source)));
    QCACHE_TRY(theirs->check(source));
    if (!same) {
      return refuse(
          fmt::format("tensor {} of the program has other values than in {}: save a changed model for a "
                      "folder of its own",
                      in_quotes(source.name), folder->path));
    }
  }
  return {};
}

/// Something that decides the bytes, by its content alone.
SourceFileIdentity identity_of_content(std::string path, const Sha256Digest& digest) {
  SourceFileIdentity identity;
  identity.path = std::move(path);
  identity.header_digest = digest;
  return identity;
}

Result<Sha256Digest> content_digest(Env& env, const Held& held) {
  Stats stats;
  const std::unique_ptr<SourceReader> reader = held.reader(env, stats);
  Sha256 hash;
  for (const TensorInfo& tensor : held.model.tensors) {
    // The length first, so that no name can be taken for what follows it.
    hash.update(fmt::format("{}:{}:{}\n", tensor.name.size(), tensor.name, described(tensor)));
    Pieces pieces(*reader, tensor);
    QCACHE_TRY_ASSIGN(std::span<const std::byte> piece, pieces.next());
    while (!piece.empty()) {
      hash.update(piece);
      QCACHE_TRY_ASSIGN(piece, pieces.next());
    }
  }
  return hash.finish();
}

/// Makes a whole source model of tensors that only the program has.
Status complete(Env& env, Held& held, const std::string& folder, const std::string& name) {
  SourceModel& model = held.model;
  model.name = name;
  model.path = folder;
  QCACHE_TRY_ASSIGN(const Sha256Digest content, content_digest(env, held));
  model.identity.files.push_back(identity_of_content("tensors of a program", content));
  auto config = SourceFolders(env, {"/"}).read(folder + "/config.json", kMaxConfigBytes);
  if (config) {
    model.facts = parse_model_facts(config->content);
    model.identity.files.push_back(identity_of_content("config.json", config->identity.header_digest));
    if (model.facts.has_config) {
      model.config_text = std::move(config->content);
    }
  } else if (config.error().kind != ErrorKind::kNotFound) {
    return fail(std::move(config).error());
  }
  add_tensor_facts(model.tensors, model.facts);
  return {};
}

/// Who saves a model says what its file is to hold from now on, so what was made of its former states goes, and the
/// path is free for it. What another build made, or somebody has pinned, stays beside it.
Status drop_former_states(Store& store, const std::string& base, const Sha256Digest& method,
                          const Sha256Digest& recipe) {
  QCACHE_TRY_ASSIGN(const std::vector<Record> records, store.find_all(base));
  for (const Record& record : records) {
    if (record.method == method && record.recipe != recipe && !record.pinned) {
      QCACHE_TRY(store.drop_sealed(record, "a program saves another state of its model", WhenInUse::kDrop));
    }
  }
  return {};
}

}  // namespace

Status save_program_model(Env& env, const std::vector<ProgramTensor>& tensors, const std::string& cache_path,
                          const ModelSource& source) {
  const Scheme* const scheme = find_scheme(source.weight_dtype);
  if (scheme == nullptr) {
    return refuse(fmt::format("'{}' is not a known dtype", source.weight_dtype));
  }
  if (source.rank != 0) {
    return fail(ErrorKind::kUnsupported,
                fmt::format("rank {} is for mounts to make: a program saves rank 0", source.rank));
  }
  QCACHE_TRY_ASSIGN(const std::string folder, env.real_path(source.model_path));
  const std::string file = artifact_file_name(folder, scheme->name(), source.rank);
  const size_t slash = cache_path.find_last_of('/');
  if (cache_path.substr(slash == std::string::npos ? 0 : slash + 1) != file) {
    return refuse(fmt::format("{} is not where {} is cached in dtype {} with rank {}: that file is called {}",
                              cache_path, folder, scheme->name(), source.rank, file));
  }
  QCACHE_TRY_ASSIGN(Held held, hold(tensors));
  QCACHE_TRY_ASSIGN(CacheDirectory directory,
                    CacheDirectory::open(env, slash == std::string::npos ? "." : cache_path.substr(0, slash + 1)));
  QCACHE_TRY_ASSIGN(const std::shared_ptr<Store> store, Store::open(env, std::move(directory)));

  const std::string name = source.model_name.empty() ? model_name_of(env, folder) : source.model_name;
  QCACHE_TRY_ASSIGN(std::shared_ptr<const SourceModel> model, read_settled_model(env, folder, name));
  OpenSource open_source;
  if (model) {
    QCACHE_TRY(check_same(env, held, model));
    open_source = [&](Stats& stats) { return SourceReader::open(env, model, stats); };
  } else {
    QCACHE_TRY(complete(env, held, folder, name));
    model = std::make_shared<const SourceModel>(held.model);
    open_source = [&](Stats& stats) -> Result<std::unique_ptr<SourceReader>> {
      return std::make_unique<MemorySource>(env, model, held.memory, stats);
    };
  }
  const ArtifactName artifact{name, scheme, source.rank};
  QCACHE_TRY(drop_former_states(*store, file, method_of(artifact), recipe_of(artifact, *model)));
  QCACHE_TRY_ASSIGN([[maybe_unused]] const Record record, make_whole_file(*store, artifact, model, open_source));
  return {};
}

}  // namespace qcache

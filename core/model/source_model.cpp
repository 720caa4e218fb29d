#include "core/model/source_model.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include <fmt/format.h>

#include "core/model/model_facts.h"
#include "core/model/pipeline.h"
#include "core/model/safetensors.h"
#include "core/model/source_encoding.h"
#include "core/model/source_folders.h"
#include "core/model/text.h"
#include "core/model/torch_checkpoint.h"
#include "core/model/weight_files.h"
#include "core/model/weight_index.h"

namespace qcache {
namespace {

constexpr uint64_t kMaxConfigBytes = uint64_t{4} << 20;
constexpr uint64_t kMaxIndexBytes = 100'000'000;

tl::unexpected<Error> invalid(std::string message) {
  return fail(ErrorKind::kInvalidModel, std::move(message));
}

SourceFileIdentity absent_file(std::string path) {
  SourceFileIdentity identity;
  identity.path = std::move(path);
  return identity;
}

/// Reads one model; read() is called once.
class ModelReader {
 public:
  ModelReader(Env& env, SourceFolders folders, std::string folder, std::string name)
      : env_(env), folders_(std::move(folders)) {
    model_.name = std::move(name);
    model_.path = std::move(folder);
    model_.folders = folders_.folders();
  }

  Result<SourceModel> read() {
    SourceIdentity& identity = model_.identity;
    identity.captured_at_ns = env_.now_ns();
    identity.capture_began_ns = env_.monotonic_ns();
    QCACHE_TRY_ASSIGN(auto names, folders_.list(model_.path));
    model_.component = pipeline_component(folders_, model_.path, names);
    if (!model_.component.empty()) {
      QCACHE_TRY_ASSIGN(names, folders_.list(folder()));
    }
    QCACHE_TRY(read_weights(names));
    QCACHE_TRY(read_config());
    QCACHE_TRY(recognize_encodings());
    add_tensor_facts(model_.tensors, model_.facts);
    identity.settled_at_ns = settled_at_ns();
    identity.seen_since_ns = env_.monotonic_ns();
    return std::move(model_);
  }

 private:
  [[nodiscard]] std::string folder() const {
    return model_.component.empty() ? model_.path : model_.path + '/' + model_.component;
  }
  [[nodiscard]] std::string path_of(std::string_view name) const { return folder() + '/' + std::string(name); }

  Status recognize_encodings() {
    for (const SourceEncoding* const encoding : all_source_encodings()) {
      QCACHE_TRY(encoding->recognize(model_.facts, model_.tensors));
      const auto is_of_it = [&](const TensorInfo& tensor) { return tensor.encoding == encoding; };
      if (std::ranges::any_of(model_.tensors, is_of_it)) {
        model_.encodings.push_back(encoding);
      }
    }
    return {};
  }

  Status read_weights(const std::vector<std::string>& names) {
    const auto chosen = choose_weight_files(names);
    if (!chosen) {
      return fail(chosen.error().with_context(folder()));
    }
    format_ = chosen->format;
    if (chosen->index.empty()) {
      QCACHE_TRY(read_files(chosen->names));
      QCACHE_TRY(check_unique());
    } else {
      QCACHE_TRY(read_indexed(chosen->index));
    }
    // Before the index, so that the order is that of preference.
    auto& files = model_.identity.files;
    const auto end_of_weights = files.begin() + static_cast<ptrdiff_t>(model_.files.size());
    std::vector<SourceFileIdentity> absent;
    for (const std::string& name : chosen->earlier) {
      absent.push_back(absent_file(path_of(name)));
    }
    files.insert(end_of_weights, absent.begin(), absent.end());
    return {};
  }

  Status read_indexed(const std::string& name) {
    const std::string path = path_of(name);
    QCACHE_TRY_ASSIGN(SmallFile file, folders_.read(path, kMaxIndexBytes));
    const auto index = parse_weight_index(file.content);
    if (!index) {
      return fail(index.error().with_context(path));
    }
    QCACHE_TRY(read_files(index->shards));
    QCACHE_TRY(check_unique());
    QCACHE_TRY(check_index(path, *index));
    model_.spots.push_back(std::move(file.spot));
    model_.identity.files.push_back(std::move(file.identity));
    return {};
  }

  Status read_files(const std::vector<std::string>& names) {
    for (const std::string& name : names) {
      const std::string path = path_of(name);
      auto file = folders_.open(path);
      if (!file) {
        return file.error().kind == ErrorKind::kNotFound
                   ? invalid(path + " is missing, or a link to nothing: is the download complete?")
                   : fail(file.error());
      }
      QCACHE_TRY_ASSIGN(Header header, read_header(*file));
      QCACHE_TRY_ASSIGN(SourceFileIdentity identity, file->finish(env_, header.digest));
      const auto number = static_cast<uint32_t>(model_.files.size());
      for (TensorInfo& tensor : header.tensors) {
        tensor.file = number;
      }
      if (model_.tensors.empty()) {
        model_.tensors = std::move(header.tensors);  // a large header is not held twice
      } else {
        std::ranges::move(header.tensors, std::back_inserter(model_.tensors));
      }
      model_.files.push_back(path);
      model_.spots.push_back(file->spot());
      model_.identity.files.push_back(std::move(identity));
    }
    return {};
  }

  struct Header {
    std::vector<TensorInfo> tensors;
    Sha256Digest digest;
  };
  Result<Header> read_header(const SourceFile& file) {
    if (format_ == WeightFormat::kTorch) {
      QCACHE_TRY_ASSIGN(TorchCheckpoint checkpoint,
                        read_torch_checkpoint(env_, file.fd(), file.path(), file.stat().size_bytes));
      return Header{std::move(checkpoint.tensors), checkpoint.digest};
    }
    QCACHE_TRY_ASSIGN(SafetensorsHeader header, read_safetensors_header(env_, file.fd(), file.path()));
    return Header{std::move(header.tensors), header.digest};
  }

  [[nodiscard]] std::vector<const TensorInfo*> tensors_by_name() const {
    std::vector<const TensorInfo*> sorted;
    sorted.reserve(model_.tensors.size());
    for (const TensorInfo& tensor : model_.tensors) {
      sorted.push_back(&tensor);
    }
    std::sort(sorted.begin(), sorted.end(), [](const auto* a, const auto* b) { return a->name < b->name; });
    return sorted;
  }

  [[nodiscard]] Status check_unique() const {
    const auto sorted = tensors_by_name();
    const auto twice = std::adjacent_find(sorted.begin(), sorted.end(),
                                          [](const auto* a, const auto* b) { return a->name == b->name; });
    if (twice != sorted.end()) {
      return invalid(fmt::format("tensor {} is in both {} and {}: different models belong into folders of their own",
                                 in_quotes((*twice)->name), file_of(**twice), file_of(**std::next(twice))));
    }
    return {};
  }

  // Both sides are sorted by name and free of duplicates.
  [[nodiscard]] Status check_index(const std::string& path, const WeightIndex& index) const {
    const auto sorted = tensors_by_name();
    auto tensor = sorted.begin();
    for (const auto& [name, shard] : index.weight_map) {
      if (tensor == sorted.end() || (*tensor)->name > name) {
        return invalid(fmt::format("{}: the index names tensor {} in {}, which does not hold it", path, in_quotes(name),
                                   in_quotes(shard)));
      }
      if ((*tensor)->name < name) {
        break;
      }
      if (file_of(**tensor) != path_of(shard)) {
        return invalid(fmt::format("{}: the index names tensor {} in {}, but it is in {}", path, in_quotes(name),
                                   in_quotes(shard), file_of(**tensor)));
      }
      ++tensor;
    }
    if (tensor != sorted.end()) {
      return invalid(
          fmt::format("{}: tensor {} of {} is not in the index", path, in_quotes((*tensor)->name), file_of(**tensor)));
    }
    return {};
  }

  [[nodiscard]] const std::string& file_of(const TensorInfo& tensor) const { return model_.files[tensor.file]; }

  // A config that cannot be used leaves a model that can be served, with less known of it. An I/O failure is
  // not that: it may pass, and the same model would then be planned in another way.
  Status read_config() {
    const std::string path = path_of("config.json");
    auto& files = model_.identity.files;
    const auto place = folders_.look(path);
    if (!place) {
      if (place.error().kind != ErrorKind::kNotFound) {
        return fail(place.error());
      }
      files.push_back(absent_file(path));
      return {};
    }
    auto file = folders_.read(*place, path, kMaxConfigBytes);
    if (file) {
      model_.spots.push_back(std::move(file->spot));
      model_.facts = parse_model_facts(file->content);
      if (model_.facts.has_config) {
        model_.config_text = std::move(file->content);
      }
      files.push_back(std::move(file->identity));
      return {};
    }
    switch (file.error().kind) {
      case ErrorKind::kInvalidModel:
      case ErrorKind::kPermission: {
        model_.facts.config_problem = std::move(file.error().message);
        const FileStat& stat = place->stat;
        files.push_back({path, stat.inode, stat.size_bytes, stat.mtime_ns, stat.ctime_ns, {}});
        return {};
      }
      default:
        return fail(std::move(file.error()));
    }
  }

  [[nodiscard]] int64_t settled_at_ns() const {
    int64_t settled = 0;
    for (const SourceFileIdentity& file : model_.identity.files) {
      FileStat stat;
      stat.mtime_ns = file.mtime_ns;
      stat.ctime_ns = file.ctime_ns;
      // Anyone can set an mtime, also one of the future (unpacked archives have them). Waiting for it would
      // wait for ever; every change still shows in the ctime.
      if (stat.mtime_ns > model_.identity.captured_at_ns && stat.ctime_ns > 0) {
        stat.mtime_ns = stat.ctime_ns;
      }
      settled = std::max(settled, file.absent() ? 0 : settle_time_ns(stat));
    }
    return settled;
  }

  Env& env_;
  const SourceFolders folders_;
  WeightFormat format_ = WeightFormat::kSafetensors;
  SourceModel model_;
};

}  // namespace

DType SourceModel::model_dtype() const {
  constexpr std::array kWide = {DType::kF64, DType::kF32, DType::kF16, DType::kBF16};
  std::array<uint64_t, kWide.size()> bytes{};
  for (const TensorInfo& tensor : tensors) {
    const auto* wide = std::find(kWide.begin(), kWide.end(), tensor.dtype);
    if (wide != kWide.end()) {
      bytes[static_cast<size_t>(wide - kWide.begin())] += tensor.data.size;
    }
  }
  const auto* most = std::max_element(bytes.begin(), bytes.end());
  return *most > 0 ? kWide[static_cast<size_t>(most - bytes.begin())] : facts.declared_dtype.value_or(DType::kF32);
}

uint64_t SourceModel::weight_bytes() const {
  uint64_t bytes = 0;
  for (const TensorInfo& tensor : tensors) {
    bytes += tensor.data.size;
  }
  return bytes;
}

Result<SourceModel> read_source_model(Env& env, const SourceFolders& folders, const std::string& path,
                                      const std::string& name) {
  QCACHE_TRY_ASSIGN(std::string folder, env.real_path(path));
  SourceFolders of_model = folders.of_model(folder);
  return ModelReader(env, std::move(of_model), std::move(folder), name).read();
}

Result<SourceModel> read_source_model(Env& env, const std::string& path, const std::string& name) {
  QCACHE_TRY_ASSIGN(const std::string folder, env.real_path(path));
  return read_source_model(env, SourceFolders(env, {folder}), folder, name);
}

}  // namespace qcache

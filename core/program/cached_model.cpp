#include "core/program/cached_model.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <array>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/log.h"
#include "core/engine/artifact_name.h"
#include "core/model/text.h"
#include "core/model/torch_checkpoint.h"
#include "core/model/zip_directory.h"
#include "core/program/model_state.h"
#include "core/quant/stored_encoding.h"
#include "core/store/cache_directory.h"
#include "core/store/store.h"

namespace qcache {
namespace {

constexpr std::string_view kDescription = "archive/qcache.json";

struct CachedFilePlace {
  std::string directory;
  std::string file;
  bool exists = false;
};

tl::unexpected<Error> not_cached(const std::string& cache_path, std::string_view why) {
  return fail(
      ErrorKind::kNotFound,
      fmt::format("nothing is cached at {} ({}): save the model, or read its file in a mount", cache_path, why));
}

/// The folder (links resolved) and the name of the file at a cache path. The folder alone must exist: what goes by the
/// name may lie beside it.
Result<CachedFilePlace> place_of(Env& env, const std::string& cache_path) {
  const auto real = env.real_path(cache_path);
  if (!real && real.error().kind != ErrorKind::kNotFound) {
    return fail(real.error());
  }
  const std::string& path = real ? *real : cache_path;
  const size_t slash = path.find_last_of('/');
  CachedFilePlace place{slash == std::string::npos ? "." : path.substr(0, slash + 1), path.substr(slash + 1),
                        real.has_value()};
  if (!is_artifact_file_name(place.file) || !place.file.ends_with(container_checkpoint().suffix)) {
    return fail(ErrorKind::kInvalidArgument,
                cache_path + " is not the path of a cached model: get_quantized_model_cache_path() gives those");
  }
  return place;
}

/// Whether the record is still what the model in its folder makes. So it is where there is no model any more.
Result<bool> is_up_to_date(Env& env, const Record& record) {
  const std::string name = record.model_path.substr(record.model_path.find_last_of('/') + 1);
  QCACHE_TRY_ASSIGN(const auto model, read_settled_model(env, record.model_path, name));
  return model ? is_made_of(record, *model) : true;
}

/// The record of what is cached at the path: that of the file itself where it is one of several recipes', else that of
/// what the model in its folder makes now.
Result<Record> record_at(Store& store, const CachedFilePlace& place, const std::string& cache_path) {
  QCACHE_TRY_ASSIGN(std::vector<Record> records, store.find_all(base_file_name(place.file)));
  if (place.file != base_file_name(place.file)) {
    std::erase_if(records, [&](const Record& record) { return record.file != place.file; });
  }
  if (records.empty()) {
    return not_cached(cache_path, "it has no record");
  }
  for (Record& record : records) {
    QCACHE_TRY_ASSIGN(const bool up_to_date, is_up_to_date(store.env(), record));
    if (up_to_date) {
      return std::move(record);
    }
  }
  return not_cached(cache_path, "the model in " + records.front().model_path + " has changed since");
}

Result<SealedFile> open_sealed(Store& store, const Record& record, const std::string& cache_path) {
  SealedFile sealed;
  QCACHE_TRY_ASSIGN(const SealedState state, store.find_sealed(record.file, record.recipe, sealed));
  switch (state) {
    case SealedState::kTrusted:
      return sealed;
    case SealedState::kAbsent:
      return not_cached(cache_path, "it was just removed");
    case SealedState::kSuspect:
      break;
  }
  QCACHE_TRY_ASSIGN(auto verified, store.open_verified(record));
  if (!verified) {
    return fail(ErrorKind::kCorrupt,
                fmt::format("the bytes of {} are not those that were saved: save the model again, or call "
                            "cleanup_corrupted_cache()",
                            cache_path));
  }
  return std::move(*verified);
}

/// The member that tells which tensors are quantized.
Result<std::vector<std::string>> quantized_tensors(ByteSource& file) {
  QCACHE_TRY_ASSIGN(const ZipDirectory directory, ZipDirectory::read(file));
  const ZipDirectory::Entry* const entry = directory.find(kDescription);
  if (entry == nullptr) {
    return fail(ErrorKind::kUnsupported, "the cached file has no qcache.json");
  }
  QCACHE_TRY_ASSIGN(const ByteRange range, locate_zip_member(file, *entry));
  QCACHE_TRY_ASSIGN(const std::vector<char> text, file.read(range.offset, range.size));
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  std::vector<std::string> names;
  if (!json.is_object() || !json.contains("quantized") || !json["quantized"].is_array()) {
    return fail(ErrorKind::kCorrupt, "the cached file's qcache.json does not tell what is quantized");
  }
  for (const auto& name : json["quantized"]) {
    if (name.is_string()) {
      names.push_back(name.get<std::string>());
    }
  }
  return names;
}

}  // namespace

Result<std::shared_ptr<const CachedModel>> CachedModel::open(Env& env, const std::string& cache_path) {
  QCACHE_TRY_ASSIGN(const CachedFilePlace place, place_of(env, cache_path));
  auto directory = CacheDirectory::open_existing(env, place.directory);
  if (!directory) {
    return place.exists || directory.error().kind != ErrorKind::kNotFound
               ? fail(std::move(directory).error())
               : not_cached(cache_path, "there is no such file");
  }
  QCACHE_TRY_ASSIGN(const std::shared_ptr<Store> store, Store::open(env, std::move(*directory)));
  QCACHE_TRY_ASSIGN(const Record record, record_at(*store, place, cache_path));
  QCACHE_TRY_ASSIGN(SealedFile sealed, open_sealed(*store, record, cache_path));
  const std::array<AccessUpdate, 1> access = {AccessUpdate{record.file, env.now_ns(), 1}};
  if (const Status touched = store->catalog().touch(access); !touched) {
    spdlog::warn("cannot record that {} was read: {}", cache_path, touched.error().message);
  }
  const std::shared_ptr<CachedModel> model(new CachedModel());
  model->path_ = cache_path;
  model->dtype_ = record.dtype;
  model->rank_ = record.rank;
  model->scheme_version_ = record.scheme_version;
  QCACHE_TRY(model->map(std::move(sealed.fd), record.size_bytes, cache_path));
  QCACHE_TRY(model->read(env, cache_path));
  return model;
}

CachedModel::CachedModel() = default;

CachedModel::~CachedModel() {
  if (!mapping_.empty()) {
    ::munmap(mapping_.data(), mapping_.size());
  }
}

Status CachedModel::map(UniqueFd fd, uint64_t size, const std::string& path) {
  // Writable, as torch maps files: who works in place on a loaded tensor gets pages of his own.
  void* const memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd.get(), 0);
  if (memory == MAP_FAILED) {
    return fail(system_error(errno, "cannot map " + path));
  }
  mapping_ = std::span(static_cast<std::byte*>(memory), size);
  fd_ = std::move(fd);
  return {};
}

Status CachedModel::read(Env& env, const std::string& path) {
  QCACHE_TRY_ASSIGN(TorchCheckpoint checkpoint, read_torch_checkpoint(env, fd_.get(), path, mapping_.size()));
  tensors_ = std::move(checkpoint.tensors);
  for (const TensorInfo& tensor : tensors_) {
    by_name_.emplace(tensor.name, &tensor);
  }
  FileBytes file(env, fd_.get(), path, mapping_.size());
  QCACHE_TRY_ASSIGN(quantized_, quantized_tensors(file));
  quantized_names_.insert(quantized_.begin(), quantized_.end());
  if (const Scheme* const scheme = find_scheme(dtype_)) {
    encodings_ = std::make_unique<const StoredEncodings>(*scheme, quantized_);
  }
  return {};
}

std::span<std::byte> CachedModel::bytes_of(const TensorInfo& tensor) const {
  return mapping_.subspan(tensor.data.offset, tensor.data.size);
}

std::vector<std::string> CachedModel::model_tensors() const {
  std::unordered_set<std::string> parts;
  if (encodings_) {
    for (const std::string& name : quantized_) {
      for (std::string& part : encodings_->names_of(name)) {
        parts.insert(std::move(part));
      }
    }
  }
  std::vector<std::string> names = quantized_;
  for (const TensorInfo& tensor : tensors_) {
    if (!parts.contains(tensor.name)) {
      names.push_back(tensor.name);
    }
  }
  return names;
}

Result<PlaceInFile> CachedModel::find(const std::string& name, const Shape& shape) const {
  PlaceInFile place;
  if (!quantized_names_.contains(name)) {
    const auto found = by_name_.find(name);
    if (found == by_name_.end()) {
      return fail(ErrorKind::kNotFound, fmt::format("{} has no tensor {}", path_, in_quotes(name)));
    }
    if (found->second->shape != shape) {
      return fail(ErrorKind::kInvalidArgument,
                  fmt::format("tensor {} is [{}] in the program and [{}] in {}", in_quotes(name),
                              fmt::join(shape, ", "), fmt::join(found->second->shape, ", "), path_));
    }
    place.dense = found->second;
    return place;
  }
  const Scheme* const scheme = find_scheme(dtype_);
  if (scheme == nullptr || scheme->version() != scheme_version_) {
    return fail(ErrorKind::kUnsupported, fmt::format("another version of qcache made {}: save it again", path_));
  }
  if (rank_ != 0) {
    return fail(
        ErrorKind::kUnsupported,
        fmt::format("{} has rank {}: its factors have to be added by the program, so load it as a map of tensors",
                    path_, rank_));
  }
  place.encoding = encodings_->find(name, shape, [&](std::string_view stored) -> std::optional<TensorInFile> {
    const auto found = by_name_.find(stored);
    return found == by_name_.end()
               ? std::nullopt
               : std::optional(TensorInFile{found->second->dtype, found->second->shape, bytes_of(*found->second)});
  });
  if (!place.encoding) {
    return fail(ErrorKind::kInvalidArgument,
                fmt::format("tensor {} is [{}] in the program, which is not its shape in {}", in_quotes(name),
                            fmt::join(shape, ", "), path_));
  }
  for (const StoredTensor& stored : place.encoding->stored) {
    place.stored.emplace_back(bytes_of(*by_name_.at(stored.name)));
  }
  return place;
}

}  // namespace qcache

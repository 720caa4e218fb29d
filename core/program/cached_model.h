#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "core/base/env.h"
#include "core/base/result.h"
#include "core/base/unique_fd.h"
#include "core/model/tensor.h"
#include "core/quant/encoding.h"

namespace qcache {

class StoredEncodings;

/// Where a tensor of the model lies in a cached file: as it is (`dense`, whose dtype may be another than the model's),
/// or quantized by `encoding` into `stored`.
struct PlaceInFile {
  const TensorInfo* dense = nullptr;
  std::optional<Encoding> encoding;
  std::vector<std::span<const std::byte>> stored;

  /// The values of a quantized tensor, one for each element. REQUIRES: dense == nullptr, as many elements.
  void decode(std::span<float> values) const { encoding->decode_units(stored, nullptr, values); }
};

/// A sealed checkpoint, mapped into memory.
///
/// Always holds: its bytes are those of its record, by its inode's state or by its hash, and the model it was made from
/// has not changed since (where its folder still holds weights). The mapping is private: what a program writes there is
/// its own affair. While this lives the file counts as in use. Thread-safe; immutable.
class CachedModel {
 public:
  /// kNotFound where nothing is cached at the path, or only what a former state of the model made; kCorrupt where the
  /// bytes are not those that were sealed.
  static Result<std::shared_ptr<const CachedModel>> open(Env& env, const std::string& cache_path);
  ~CachedModel();
  CachedModel(const CachedModel&) = delete;
  CachedModel& operator=(const CachedModel&) = delete;

  /// Everything that is stored, codes and scales each for itself, in the order of the file.
  [[nodiscard]] std::span<const TensorInfo> stored_tensors() const { return tensors_; }
  [[nodiscard]] std::span<std::byte> bytes_of(const TensorInfo& tensor) const;

  /// The names of the model's tensors: those that are stored as they are, and the quantized ones.
  [[nodiscard]] std::vector<std::string> model_tensors() const;
  /// kNotFound where the model has no tensor of this name; kInvalidArgument where it has another shape; kUnsupported
  /// where it cannot be decoded by this build.
  Result<PlaceInFile> find(const std::string& name, const Shape& shape) const;

 private:
  CachedModel();
  Status map(UniqueFd fd, uint64_t size, const std::string& path);
  Status read(Env& env, const std::string& path);

  std::string path_;
  std::string dtype_;
  uint32_t rank_ = 0;
  uint32_t scheme_version_ = 0;
  UniqueFd fd_;  // with the lease
  std::span<std::byte> mapping_;
  std::vector<TensorInfo> tensors_;
  std::unordered_map<std::string_view, const TensorInfo*> by_name_;
  std::vector<std::string> quantized_;
  std::unordered_set<std::string_view> quantized_names_;
  std::unique_ptr<const StoredEncodings> encodings_;  // null where this build does not know the dtype
};

}  // namespace qcache

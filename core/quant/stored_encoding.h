#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/quant/scheme.h"

namespace qcache {

/// A tensor of a finished file.
struct TensorInFile {
  DType dtype = DType::kU8;
  Shape shape;
  std::span<const std::byte> bytes;
};
/// Nothing where the file has no tensor of this name.
using FindInFile = std::function<std::optional<TensorInFile>(std::string_view name)>;

/// How the quantized tensors of a finished file are stored, found out from the file's own tensors: for readers that do
/// not have the model it was made from. What is found always fits: names, dtypes, shapes and constants are those in the
/// file. Immutable; any thread.
class StoredEncodings {
 public:
  /// `quantized` are the names of all tensors of the model that are quantized in the file.
  StoredEncodings(const Scheme& scheme, std::span<const std::string> quantized);

  /// The names of what is stored for the quantized tensor `name`.
  [[nodiscard]] std::vector<std::string> names_of(const std::string& name) const;
  /// How the quantized tensor `name`, which has this shape in the model, is stored. Nothing where the file holds none
  /// of that shape. Its source_dtype is one that decodes to the same values as the model's own.
  [[nodiscard]] std::optional<Encoding> find(const std::string& name, const Shape& shape,
                                             const FindInFile& in_file) const;

 private:
  [[nodiscard]] Encoding encoding(const std::string& name, DType dtype, const Shape& shape,
                                  uint64_t group_elements) const;

  const Scheme& scheme_;
  SourceModel model_;  // names only
};

}  // namespace qcache

#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace qcache {

// Pieces of torch checkpoints, as text, for files that torch would not write and for large ones. Nothing is checked.

/// Opcodes that push one value.
[[nodiscard]] std::string pickle_text(std::string_view text);
[[nodiscard]] std::string pickle_int(int64_t value);
[[nodiscard]] std::string pickle_ints(const std::vector<int64_t>& values);  ///< a tuple
[[nodiscard]] std::string pickle_global(std::string_view module, std::string_view name);
[[nodiscard]] std::string pickle_call(std::string_view callable, std::string_view arguments);
/// A dictionary of what the pairs push.
[[nodiscard]] std::string pickle_dict(const std::vector<std::pair<std::string, std::string>>& items);
/// A whole pickle.
[[nodiscard]] std::string pickle_of(std::string_view value);

/// One view of a storage, as a checkpoint describes it.
struct TorchView {
  std::string name;
  std::string storage;  ///< key
  std::string type = "FloatStorage";
  int64_t items = 0;  ///< claimed for the storage
  int64_t offset = 0;
  std::vector<int64_t> shape = {};
  std::vector<int64_t> strides = {};
};
/// Opcodes that push the tensor. `legacy`: with the sixth part that legacy files give a storage's name.
[[nodiscard]] std::string pickle_tensor(const TorchView& view, bool legacy = false);
/// A dictionary of these tensors.
[[nodiscard]] std::string pickle_tensors(const std::vector<TorchView>& views, bool legacy = false);

struct ZipPiece {
  std::string name;
  std::string bytes;
};
/// An archive of stored members, without zip64 fields.
[[nodiscard]] std::string zip_of(const std::vector<ZipPiece>& members);
/// The archive that torch.load reads: `value` is pushed in data.pkl, storages are pairs of key and bytes.
[[nodiscard]] std::string torch_zip(std::string_view value,
                                    const std::vector<std::pair<std::string, std::string>>& storages);
/// The legacy file. The bytes of a storage begin with their count, eight bytes that the caller writes.
[[nodiscard]] std::string torch_legacy(std::string_view value,
                                       const std::vector<std::pair<std::string, std::string>>& storages);
[[nodiscard]] std::string little_endian(uint64_t value, size_t width);

}  // namespace qcache

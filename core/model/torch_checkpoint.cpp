#include "core/model/torch_checkpoint.h"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <unordered_map>
#include <utility>

#include <fmt/format.h>

#include "core/base/checked.h"
#include "core/model/pickle_reader.h"
#include "core/model/pickled_tensors.h"
#include "core/model/text.h"
#include "core/model/zip_directory.h"

namespace qcache {
namespace {

constexpr std::string_view kZipMagic = "PK\3\4";
// A pickle's opcode for an integer of ten bytes, the number with which legacy checkpoints begin, and its end. Before it
// is the protocol, and since protocol 4 the length of a frame.
constexpr std::string_view kLegacyMagic("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 13);
constexpr int64_t kLegacyProtocol = 1001;

using StoragePlaces = std::unordered_map<std::string_view, ByteRange>;

tl::unexpected<Error> invalid(std::string message) {
  return fail(ErrorKind::kInvalidModel, std::move(message));
}

/// The position after the legacy magic; none where the file does not begin with it.
std::optional<size_t> after_legacy_magic(std::string_view beginning) {
  constexpr size_t kProtocol = 2;
  constexpr size_t kFrame = 9;
  if (!beginning.starts_with('\x80')) {
    return std::nullopt;
  }
  for (const size_t position : {kProtocol, kProtocol + kFrame}) {
    if (beginning.size() >= position && beginning.substr(position).starts_with(kLegacyMagic)) {
      return position + kLegacyMagic.size();
    }
  }
  return std::nullopt;
}

/// How much more than its own bytes a file may describe: names may share a storage and expanded tensors have all their
/// elements in one place, so that a file of 1 KB could stand for terabytes. Tied weights double a file at most.
constexpr uint64_t kMaxExpansion = 64;

Status check_expansion(const std::vector<TensorInfo>& tensors, uint64_t file_bytes) {
  const uint64_t allowed = checked_mul(file_bytes, kMaxExpansion).value_or(std::numeric_limits<uint64_t>::max());
  uint64_t left = allowed;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.data.size > allowed) {
      return invalid(
          fmt::format("tensor {} is {} bytes large, more than {} times the {} bytes of the file that it is "
                      "in: its elements are one and the same over and over (an expanded tensor)",
                      in_quotes(tensor.name), tensor.data.size, kMaxExpansion, file_bytes));
    }
    if (tensor.data.size > left) {
      return invalid(
          fmt::format("the tensors up to {} are together more than {} times as large as the {} bytes of the "
                      "file that they are in: too many of them share its bytes",
                      in_quotes(tensor.name), kMaxExpansion, file_bytes));
    }
    left -= tensor.data.size;
  }
  return {};
}

uint64_t storage_item_bytes(const PickledStorage& storage) {
  return storage.dtype ? item_bytes(*storage.dtype) : 1;
}

/// What the pickle claims for the storage, in bytes; none where that is beyond 64 bits.
std::optional<uint64_t> claimed_bytes(const PickledStorage& storage) {
  return checked_mul(storage.items, storage_item_bytes(storage));
}

bool is_row_major(const Shape& shape, const std::vector<uint64_t>& strides) {
  uint64_t expected = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    if (shape[i] != 1 && strides[i] != expected) {
      return false;
    }
    expected *= shape[i];
  }
  return true;
}

/// The tensor as a view of `storage`, which lies in the file.
Result<TensorInfo> place_tensor(PickledTensor&& tensor, const ByteRange& storage) {
  std::optional<uint64_t> bytes = item_bytes(tensor.dtype);
  std::optional<uint64_t> last = tensor.offset;  // its last element
  bool empty = false;
  for (size_t i = 0; i < tensor.shape.size(); ++i) {
    const uint64_t extent = tensor.shape[i];
    bytes = bytes ? checked_mul(*bytes, extent) : std::nullopt;
    empty = empty || extent == 0;
    const auto reach = checked_mul(extent == 0 ? 0 : extent - 1, tensor.strides[i]);
    last = last && reach ? checked_add(*last, *reach) : std::nullopt;
  }
  if (!bytes) {
    return invalid(fmt::format("the shape of tensor {} is too large", in_quotes(tensor.name)));
  }
  TensorInfo info;
  info.name = tensor.name;
  info.dtype = tensor.dtype;
  info.data = {storage.offset, *bytes};
  if (!empty) {
    const auto elements = last ? checked_add(*last, 1) : std::nullopt;
    const auto needed = elements ? checked_mul(*elements, item_bytes(tensor.dtype)) : std::nullopt;
    if (!needed || *needed > storage.size) {
      return invalid(fmt::format("tensor {} reaches beyond its storage {} of {} bytes: is the file complete?",
                                 in_quotes(tensor.name), in_quotes(tensor.storage.key), storage.size));
    }
    info.data.offset += tensor.offset * item_bytes(tensor.dtype);
    if (!is_row_major(tensor.shape, tensor.strides)) {
      info.strides = std::move(tensor.strides);
    }
  }
  info.shape = std::move(tensor.shape);
  return info;
}

/// Reads one zip checkpoint.
class ZipCheckpoint {
 public:
  ZipCheckpoint(ByteSource& source, ZipDirectory directory, std::string folder)
      : source_(source), directory_(std::move(directory)), folder_(std::move(folder)) {}

  static Result<ZipCheckpoint> open(ByteSource& source) {
    QCACHE_TRY_ASSIGN(ZipDirectory directory, ZipDirectory::read(source));
    const std::string_view first = directory.entries().empty() ? "" : directory.entries().front().name;
    const size_t slash = first.find('/');
    if (slash == std::string_view::npos) {
      return invalid("the zip archive is no torch checkpoint: its members are in no folder");
    }
    std::string folder(first.substr(0, slash + 1));
    return ZipCheckpoint(source, std::move(directory), std::move(folder));
  }

  Result<std::vector<TensorInfo>> tensors() {
    if (directory_.find(folder_ + "constants.pkl") != nullptr) {
      return invalid("the checkpoint is a TorchScript archive, which qcache does not read: save its state_dict()");
    }
    QCACHE_TRY(check_byte_order());
    const ZipDirectory::Entry* const entry = directory_.find(folder_ + "data.pkl");
    if (entry == nullptr) {
      return invalid("the zip archive is no torch checkpoint: it has no data.pkl");
    }
    QCACHE_TRY_ASSIGN(const ByteRange place, locate_zip_member(source_, *entry));
    QCACHE_TRY_ASSIGN(const Pickle pickle, read_pickle(source_, place.offset, place.end()));
    QCACHE_TRY_ASSIGN(auto pickled, pickled_tensors(pickle.graph));
    std::vector<TensorInfo> tensors;
    tensors.reserve(pickled.size());
    StoragePlaces places;
    for (PickledTensor& tensor : pickled) {
      QCACHE_TRY_ASSIGN(const ByteRange storage, storage_of(tensor, places));
      QCACHE_TRY_ASSIGN(TensorInfo info, place_tensor(std::move(tensor), storage));
      tensors.push_back(std::move(info));
    }
    return tensors;
  }

 private:
  Status check_byte_order() {
    const ZipDirectory::Entry* const entry = directory_.find(folder_ + "byteorder");
    if (entry == nullptr) {  // before torch 2.1
      return {};
    }
    constexpr std::string_view kLittle = "little";
    QCACHE_TRY_ASSIGN(const ByteRange place, locate_zip_member(source_, *entry));
    QCACHE_TRY_ASSIGN(const auto order, source_.read(place.offset, std::min(place.size, kLittle.size() + 1)));
    return as_view(order) == kLittle ? Status() : invalid("the checkpoint is not in little-endian byte order");
  }

  /// The bytes that the pickle claims, in their record.
  Result<ByteRange> storage_of(const PickledTensor& tensor, StoragePlaces& places) {
    const PickledStorage& storage = tensor.storage;
    auto place = places.find(storage.key);
    if (place == places.end()) {
      const ZipDirectory::Entry* const entry = directory_.find(folder_ + "data/" + std::string(storage.key));
      if (entry == nullptr) {
        return invalid(fmt::format("tensor {} is in storage {}, which the checkpoint does not hold",
                                   in_quotes(tensor.name), in_quotes(storage.key)));
      }
      QCACHE_TRY_ASSIGN(const ByteRange record, locate_zip_member(source_, *entry));
      place = places.emplace(storage.key, record).first;
    }
    const ByteRange record = place->second;
    const auto claimed = claimed_bytes(storage);
    if (!claimed || *claimed > record.size) {
      return invalid(fmt::format("storage {} of tensor {} claims {} items, but its record has only {} bytes",
                                 in_quotes(storage.key), in_quotes(tensor.name), storage.items, record.size));
    }
    return ByteRange{record.offset, *claimed};
  }

  ByteSource& source_;
  ZipDirectory directory_;
  std::string folder_;  // with the slash
};

/// Reads one legacy checkpoint: magic, protocol, facts of the system, the object, the storages' keys (a pickle each),
/// then per key the number of items and the items.
class LegacyCheckpoint {
 public:
  LegacyCheckpoint(ByteSource& source, uint64_t position) : source_(source), position_(position) {}

  Result<std::vector<TensorInfo>> tensors() {
    QCACHE_TRY_ASSIGN(const PickleGraph protocol, next());
    if (protocol.kind(protocol.root()) != PickleKind::kInt || protocol.number(protocol.root()) != kLegacyProtocol) {
      return invalid("the checkpoint has an unknown version of the legacy format");
    }
    QCACHE_TRY_ASSIGN(const PickleGraph system, next());
    QCACHE_TRY(check_system(system));
    QCACHE_TRY_ASSIGN(const PickleGraph object, next());
    QCACHE_TRY_ASSIGN(const PickleGraph keys, next());
    QCACHE_TRY_ASSIGN(auto pickled, pickled_tensors(object));
    QCACHE_TRY_ASSIGN(const StoragePlaces places, place_storages(object, keys));
    std::vector<TensorInfo> tensors;
    tensors.reserve(pickled.size());
    for (PickledTensor& tensor : pickled) {
      const auto place = places.find(tensor.storage.key);
      if (place == places.end()) {
        return invalid(fmt::format("tensor {} is in storage {}, which the checkpoint does not hold",
                                   in_quotes(tensor.name), in_quotes(tensor.storage.key)));
      }
      QCACHE_TRY_ASSIGN(TensorInfo info, place_tensor(std::move(tensor), place->second));
      tensors.push_back(std::move(info));
    }
    return tensors;
  }

 private:
  Result<PickleGraph> next() {
    QCACHE_TRY_ASSIGN(Pickle pickle, read_pickle(source_, position_, source_.size()));
    position_ = pickle.end;
    return std::move(pickle.graph);
  }

  static Status check_system(const PickleGraph& system) {
    if (system.kind(system.root()) == PickleKind::kDict) {
      const auto items = system.items(system.root());
      for (size_t i = 0; i + 1 < items.size(); i += 2) {
        if (system.kind(items[i]) == PickleKind::kText && system.text(items[i]) == "little_endian" &&
            system.kind(items[i + 1]) == PickleKind::kBool && system.number(items[i + 1]) == 1) {
          return {};
        }
      }
    }
    return invalid("the checkpoint is not in little-endian byte order");
  }

  // How long an item is only the object says, where it names the storage.
  Result<StoragePlaces> place_storages(const PickleGraph& object, const PickleGraph& keys) {
    std::unordered_map<std::string_view, PickledStorage> claims;
    for (const PickleRef persistent : object.persistent()) {
      const auto storage = pickled_storage(object, persistent);
      if (!storage) {  // a class, which legacy files name in the same way
        continue;
      }
      const auto [claim, is_new] = claims.emplace(storage->key, *storage);
      if (!is_new && (claim->second.items != storage->items || claim->second.type != storage->type)) {
        return invalid(fmt::format("storage {} is described in two ways", in_quotes(storage->key)));
      }
    }
    StoragePlaces places;
    if (keys.kind(keys.root()) != PickleKind::kList) {
      return invalid("the checkpoint does not list its storages");
    }
    for (const PickleRef key : keys.items(keys.root())) {
      const auto claim = keys.kind(key) == PickleKind::kText ? claims.find(keys.text(key)) : claims.end();
      if (claim == claims.end() || (!claim->second.dtype && claim->second.items > 0)) {
        return invalid(
            "the checkpoint lists a storage that no tensor names, or one of a dtype that qcache does not know");
      }
      QCACHE_TRY_ASSIGN(const auto count_bytes, source_.read(position_, sizeof(uint64_t)));
      position_ += sizeof(uint64_t);
      const auto count = load_le<uint64_t>(as_view(count_bytes), 0);
      const PickledStorage& storage = claim->second;
      const auto bytes = claimed_bytes(storage);
      if (count != storage.items || !bytes || *bytes > source_.size() - position_) {
        return invalid(
            fmt::format("storage {} claims {} items, but its data has {}, or the file ends before: is it "
                        "complete?",
                        in_quotes(storage.key), storage.items, count));
      }
      if (!places.emplace(storage.key, ByteRange{position_, *bytes}).second) {
        return invalid(fmt::format("the checkpoint lists storage {} twice", in_quotes(storage.key)));
      }
      position_ += *bytes;
    }
    return places;
  }

  ByteSource& source_;
  uint64_t position_;
};

}  // namespace

bool has_torch_magic(std::string_view beginning) {
  return beginning.starts_with(kZipMagic) || after_legacy_magic(beginning).has_value();
}

Result<std::vector<TensorInfo>> find_torch_tensors(ByteSource& source) {
  QCACHE_TRY_ASSIGN(const auto first_bytes, source.read(0, std::min<uint64_t>(source.size(), kTorchMagicBytes)));
  const std::string_view beginning = as_view(first_bytes);
  std::vector<TensorInfo> tensors;
  if (beginning.starts_with(kZipMagic)) {
    QCACHE_TRY_ASSIGN(ZipCheckpoint checkpoint, ZipCheckpoint::open(source));
    QCACHE_TRY_ASSIGN(tensors, checkpoint.tensors());
  } else if (const auto position = after_legacy_magic(beginning)) {
    QCACHE_TRY_ASSIGN(tensors, LegacyCheckpoint(source, *position).tensors());
  } else if (is_lfs_pointer(beginning)) {
    return invalid(std::string(kLfsPointerAdvice));
  } else {
    return invalid("the file is no torch checkpoint: it begins with none of the formats that torch.save writes");
  }
  QCACHE_TRY(check_expansion(tensors, source.size()));
  std::stable_sort(tensors.begin(), tensors.end(),
                   [](const TensorInfo& a, const TensorInfo& b) { return a.data.offset < b.data.offset; });
  return tensors;
}

Result<TorchCheckpoint> read_torch_checkpoint(Env& env, int fd, const std::string& path, uint64_t size_bytes) {
  FileBytes source(env, fd, path, size_bytes);
  auto tensors = find_torch_tensors(source);
  if (!tensors) {
    // Failures of the system name the file already.
    return tensors.error().kind == ErrorKind::kInvalidModel ? fail(tensors.error().with_context(path))
                                                            : fail(tensors.error());
  }
  return TorchCheckpoint{std::move(*tensors), source.finish_digest()};
}

}  // namespace qcache

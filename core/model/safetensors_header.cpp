#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <optional>
#include <string>
#include <utility>

#include "core/base/checked.h"
#include "core/model/safetensors.h"
#include "core/model/strict_json.h"
#include "core/model/text.h"

namespace qcache {
namespace {

constexpr uint64_t kPrefixBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kMaxRank = 64;  // torch's own limit

tl::unexpected<Error> invalid(std::string message) {
  return fail(ErrorKind::kInvalidModel, std::move(message));
}

/// Collects the entries `"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}` of a header.
/// Offsets stay relative to the data; where they lie is checked once all are known.
class HeaderVisitor final : public JsonVisitor {
 public:
  std::vector<TensorInfo> tensors;

  Status on_key(std::string_view key) override {
    if (depth_ == 1) {
      in_metadata_ = key == "__metadata__";
      if (in_metadata_ && std::exchange(has_metadata_, true)) {
        return twice(key);
      }
      entry_ = {};
      entry_.info.name = key;
    } else if (depth_ == 2 && !in_metadata_) {
      field_ = key == "dtype"          ? Field::kDType
               : key == "shape"        ? Field::kShape
               : key == "data_offsets" ? Field::kOffsets
                                       : Field::kUnknown;
      const auto field = static_cast<size_t>(field_);
      if (field_ != Field::kUnknown && std::exchange(entry_.has.at(field), true)) {
        return twice(key);
      }
    }
    return {};
  }

  Status on_value(const JsonValue& value) override {
    const bool container = value.kind == JsonKind::kObject || value.kind == JsonKind::kArray;
    if (depth_ == 0 && value.kind != JsonKind::kObject) {
      return invalid("the header is not a JSON object");
    }
    if (depth_ == 1 && in_metadata_ && value.kind == JsonKind::kNull) {
      return {};  // as MLX writes none
    }
    if (depth_ == 1 && value.kind != JsonKind::kObject) {
      return invalid(in_metadata_ ? std::string("__metadata__ is not an object")
                                  : fmt::format("the entry of tensor {} is not an object", name()));
    }
    if (depth_ == 2 && in_metadata_ && value.kind != JsonKind::kString) {
      return invalid("__metadata__ holds a value that is not a string");
    }
    if (depth_ >= 2 && !in_metadata_) {
      QCACHE_TRY(on_field(value));
    }
    depth_ += container ? 1 : 0;
    return {};
  }

  Status on_end() override {
    --depth_;
    if (depth_ == 1 && !in_metadata_) {
      return finish_entry();
    }
    return {};
  }

 private:
  enum class Field { kDType, kShape, kOffsets, kUnknown };
  struct Entry {
    TensorInfo info;
    std::array<bool, 3> has{};  // by Field
    std::vector<uint64_t> offsets;
  };

  [[nodiscard]] std::string name() const { return in_quotes(entry_.info.name); }
  static Status twice(std::string_view key) {
    return invalid(fmt::format("the key {} is there twice", in_quotes(key)));
  }

  Status on_field(const JsonValue& value) {
    switch (field_) {
      case Field::kUnknown:
        return {};
      case Field::kDType:
        return on_dtype(value);
      case Field::kShape:
        return on_list(value, entry_.info.shape, kMaxRank, "shape");
      case Field::kOffsets:
        return on_list(value, entry_.offsets, 2, "data_offsets");
    }
    return {};
  }

  Status on_dtype(const JsonValue& value) {
    if (value.kind != JsonKind::kString) {
      return invalid(fmt::format("the dtype of tensor {} is not a string", name()));
    }
    const std::optional<DType> dtype = dtype_from_safetensors(value.text);
    if (!dtype) {
      return invalid(
          fmt::format("tensor {} has the dtype {}, which qcache does not know", name(), in_quotes(value.text)));
    }
    entry_.info.dtype = *dtype;
    return {};
  }

  Status on_list(const JsonValue& value, std::vector<uint64_t>& list, size_t max_size, std::string_view what) {
    if (depth_ == 2 ? value.kind != JsonKind::kArray : value.kind != JsonKind::kUnsigned) {
      return invalid(fmt::format("the {} of tensor {} are not non-negative integers", what, name()));
    }
    if (depth_ == 2) {
      return {};
    }
    if (list.size() == max_size) {
      return invalid(fmt::format("the {} of tensor {} has more than {} numbers", what, name(), max_size));
    }
    list.push_back(value.number);
    return {};
  }

  Status finish_entry() {
    TensorInfo& info = entry_.info;
    if (std::ranges::count(entry_.has, false) > 0 || entry_.offsets.size() != 2) {
      return invalid(fmt::format("tensor {} lacks its dtype, its shape or its two data_offsets", name()));
    }
    const uint64_t begin = entry_.offsets[0];
    const uint64_t end = entry_.offsets[1];
    if (begin > end) {
      return invalid(fmt::format("tensor {} ends at offset {}, before it starts at {}", name(), end, begin));
    }
    if (const uint32_t elements = elements_per_item(info.dtype); elements > 1) {
      if (info.shape.empty() || info.shape.back() % elements != 0) {
        return invalid(
            fmt::format("tensor {} has the dtype {}, of which {} are stored together, but rows of another "
                        "length",
                        name(), safetensors_name(info.dtype), elements));
      }
      info.shape.back() /= elements;
    }
    std::optional<uint64_t> bytes = item_bytes(info.dtype);
    for (const uint64_t extent : info.shape) {
      bytes = bytes ? checked_mul(*bytes, extent) : std::nullopt;
    }
    if (!bytes) {
      return invalid(fmt::format("the shape of tensor {} is too large", name()));
    }
    if (*bytes != end - begin) {
      return invalid(fmt::format("tensor {} needs {} bytes for its shape, but its data_offsets give it {}", name(),
                                 *bytes, end - begin));
    }
    info.data = {begin, end - begin};
    tensors.push_back(std::move(info));
    return {};
  }

  size_t depth_ = 0;
  bool in_metadata_ = false;
  bool has_metadata_ = false;
  Field field_ = Field::kUnknown;
  Entry entry_;
};

/// The most tensors that the text can describe: so much room is enough, and little more than is needed.
size_t most_tensors(std::string_view json) {
  constexpr std::string_view kInEachEntry = "\"data_offsets\"";
  constexpr std::string_view kShortestEntry = R"("":{"dtype":"U8","shape":[],"data_offsets":[0,0]})";
  size_t count = 0;
  for (size_t at = json.find(kInEachEntry); at != std::string_view::npos;
       at = json.find(kInEachEntry, at + kInEachEntry.size())) {
    ++count;
  }
  return std::min(count, json.size() / kShortestEntry.size());
}

bool same_entry(const TensorInfo& a, const TensorInfo& b) {
  return a.dtype == b.dtype && a.shape == b.shape && a.data == b.data;
}

// A name may be there again with the same entry, which says nothing new. Sorting, not hashing: no choice of names makes
// it slow.
Status drop_repeated(std::vector<TensorInfo>& tensors) {
  std::vector<uint32_t> by_name(tensors.size());
  std::iota(by_name.begin(), by_name.end(), 0U);
  std::sort(by_name.begin(), by_name.end(), [&](uint32_t a, uint32_t b) {
    const int order = tensors[a].name.compare(tensors[b].name);
    return order != 0 ? order < 0 : a < b;
  });
  std::vector<bool> repeated;
  for (size_t i = 1; i < by_name.size(); ++i) {
    const TensorInfo& first = tensors[by_name[i - 1]];
    const TensorInfo& second = tensors[by_name[i]];
    if (first.name != second.name) {
      continue;
    }
    if (!same_entry(first, second)) {
      return invalid(fmt::format("tensor {} is there twice, with different entries", in_quotes(first.name)));
    }
    repeated.resize(tensors.size());
    repeated[by_name[i]] = true;
  }
  if (!repeated.empty()) {
    size_t index = 0;
    std::erase_if(tensors, [&](const TensorInfo& /*tensor*/) { return repeated[index++]; });
  }
  return {};
}

// The tensors must fill [0, data_bytes) without overlap or hole, as every reader of the format demands.
Status check_coverage(const std::vector<TensorInfo>& tensors, uint64_t data_bytes) {
  uint64_t end = 0;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.data.offset < end) {
      return invalid(fmt::format("tensor {} overlaps the tensor before it", in_quotes(tensor.name)));
    }
    if (tensor.data.offset > end) {
      return invalid(fmt::format("there is a hole of {} bytes before tensor {}", tensor.data.offset - end,
                                 in_quotes(tensor.name)));
    }
    end = tensor.data.end();
    if (end > data_bytes) {
      return invalid(fmt::format("tensor {} ends at byte {} of the data, but there are only {}: is the file complete?",
                                 in_quotes(tensor.name), end, data_bytes));
    }
  }
  if (end != data_bytes) {
    return invalid(fmt::format("{} bytes follow the last tensor", data_bytes - end));
  }
  return {};
}

uint64_t little_endian_u64(std::span<const std::byte, kPrefixBytes> bytes) {
  uint64_t value = 0;
  for (size_t i = kPrefixBytes; i-- > 0;) {
    value = value << 8 | std::to_integer<uint64_t>(bytes[i]);
  }
  return value;
}

Status read_exactly(Env& env, int fd, const std::string& path, std::span<std::byte> out, uint64_t offset) {
  QCACHE_TRY_ASSIGN(const size_t size, env.read_at(fd, out, offset));
  if (size != out.size()) {
    return fail(ErrorKind::kSourceChanged, path + " became shorter while its header was read");
  }
  return {};
}

}  // namespace

Result<std::vector<TensorInfo>> parse_safetensors_header(std::string_view json, uint64_t file_bytes) {
  if (json.size() > kMaxHeaderBytes) {
    return invalid(fmt::format("the header has {} bytes, more than the 100 MB that the format allows", json.size()));
  }
  if (file_bytes < kPrefixBytes || json.size() > file_bytes - kPrefixBytes) {
    return invalid(
        fmt::format("the header has {} bytes, but the whole file only {}: is it complete?", json.size(), file_bytes));
  }
  HeaderVisitor visitor;
  visitor.tensors.reserve(most_tensors(json));
  QCACHE_TRY(visit_json(json, {.unique_keys = false}, visitor));
  std::vector<TensorInfo>& tensors = visitor.tensors;
  QCACHE_TRY(drop_repeated(tensors));
  const auto by_place = [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(a.data.offset, a.data.size) < std::pair(b.data.offset, b.data.size);
  };
  if (!std::is_sorted(tensors.begin(), tensors.end(), by_place)) {  // they nearly always are, and it takes memory
    std::stable_sort(tensors.begin(), tensors.end(), by_place);
  }
  const uint64_t data_offset = kPrefixBytes + json.size();
  QCACHE_TRY(check_coverage(tensors, file_bytes - data_offset));
  for (TensorInfo& tensor : tensors) {
    tensor.data.offset += data_offset;
  }
  return std::move(tensors);
}

Result<SafetensorsHeader> read_safetensors_header(Env& env, int fd, const std::string& path) {
  QCACHE_TRY_ASSIGN(const FileStat stat, env.stat(fd));
  if (stat.size_bytes < kPrefixBytes) {
    return invalid(fmt::format("{}: the file has {} bytes, too few for a safetensors file: is it complete?", path,
                               stat.size_bytes));
  }
  std::vector<std::byte> bytes(kPrefixBytes);
  QCACHE_TRY(read_exactly(env, fd, path, bytes, 0));
  const auto prefix = std::span(bytes).first<kPrefixBytes>();
  if (is_lfs_pointer({reinterpret_cast<const char*>(bytes.data()), bytes.size()})) {
    return invalid(fmt::format("{}: {}", path, kLfsPointerAdvice));
  }
  const uint64_t json_bytes = little_endian_u64(prefix);
  if (json_bytes > std::min(kMaxHeaderBytes, stat.size_bytes - kPrefixBytes)) {
    return invalid(
        fmt::format("{}: the file claims a header of {} bytes, more than {}: it is no safetensors file, or "
                    "incomplete",
                    path, json_bytes, json_bytes > kMaxHeaderBytes ? "100 MB" : "there are in it"));
  }
  bytes.resize(kPrefixBytes + json_bytes);
  QCACHE_TRY(read_exactly(env, fd, path, std::span(bytes).subspan(kPrefixBytes), kPrefixBytes));

  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  auto tensors = parse_safetensors_header(text.substr(kPrefixBytes), stat.size_bytes);
  if (!tensors) {
    return fail(tensors.error().with_context(path));
  }
  return SafetensorsHeader{std::move(*tensors), sha256(bytes)};
}

}  // namespace qcache

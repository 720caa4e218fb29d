#include "tests/support/model_builder.h"

#include <fcntl.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/base/checked.h"
#include "core/base/digest.h"
#include "core/base/env.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

constexpr uint64_t kChunkElements = uint64_t{1} << 20;

// One step of splitmix64 at position i of the stream `seed`.
uint64_t random_word(uint64_t seed, uint64_t i) {
  uint64_t z = seed + (i + 1) * 0x9E3779B97F4A7C15U;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
  return z ^ (z >> 31);
}

// Mean 0, variance 1: eight uniforms of 16 bits.
double normal_value(uint64_t seed, uint64_t i) {
  uint32_t sum = 0;
  for (const uint64_t word : {random_word(seed, 2 * i), random_word(seed, 2 * i + 1)}) {
    for (unsigned shift = 0; shift < 64; shift += 16) {
      sum += static_cast<uint16_t>(word >> shift);
    }
  }
  return (static_cast<double>(sum) / 65536.0 - 4.0) * std::sqrt(12.0 / 8.0);
}

uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) {
    return static_cast<uint16_t>(bits >> 16 | 0x40);
  }
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

uint16_t to_f16(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) {
    return static_cast<uint16_t>(sign | 0x7E00);
  }
  if (magnitude >= 65520.0F) {
    return static_cast<uint16_t>(sign | 0x7C00);
  }
  // Counts units of the last place of the binade; a carry into the next binade is the right encoding.
  const int exponent = std::max(std::ilogb(std::max(magnitude, 0x1p-24F)), -14);
  const auto units = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
  return static_cast<uint16_t>(sign | (units + ((exponent + 14) << 10)));
}

template <typename T>
void put(std::vector<std::byte>& out, T value) {
  const auto bytes = std::bit_cast<std::array<std::byte, sizeof(T)>>(value);
  out.insert(out.end(), bytes.begin(), bytes.end());
}

void put_float(std::vector<std::byte>& out, DType dtype, double value) {
  switch (dtype) {
    case DType::kF64:
      return put(out, value);
    case DType::kF32:
      return put(out, static_cast<float>(value));
    case DType::kF16:
      return put(out, to_f16(static_cast<float>(value)));
    case DType::kBF16:
      return put(out, to_bf16(static_cast<float>(value)));
    default:
      throw std::runtime_error("not a wide float: " + std::string(safetensors_name(dtype)));
  }
}

void put_integer(std::vector<std::byte>& out, DType dtype, uint64_t bits) {
  if (dtype == DType::kBool) {
    bits &= 1;
  } else if (dtype == DType::kF8E4M3 || dtype == DType::kF8E5M2) {
    bits &= 0xBF;  // the top exponent bit off: finite
  }
  const auto bytes = std::bit_cast<std::array<std::byte, sizeof(bits)>>(bits);
  out.insert(out.end(), bytes.begin(), bytes.begin() + item_bytes(dtype));
}

uint64_t bytes_of(DType dtype, const Shape& shape) {
  uint64_t bytes = item_bytes(dtype);
  for (const uint64_t extent : shape) {
    bytes *= extent;
  }
  return bytes;
}

template <typename T>
T require(Result<T> result) {
  if (!result) {
    throw std::runtime_error(result.error().message);
  }
  if constexpr (!std::is_void_v<T>) {
    return std::move(result).value();
  }
}

}  // namespace

TensorData TensorData::normal(uint64_t seed, double sigma) {
  TensorData data;
  data.kind_ = Kind::kNormal;
  data.seed_ = seed;
  data.value_ = sigma;
  return data;
}

TensorData TensorData::constant(double value) {
  TensorData data;
  data.kind_ = Kind::kConstant;
  data.value_ = value;
  return data;
}

TensorData TensorData::hole() {
  return {};
}

TensorData TensorData::bytes(std::vector<std::byte> bytes) {
  TensorData data;
  data.kind_ = Kind::kBytes;
  data.bytes_ = std::move(bytes);
  return data;
}

std::vector<std::byte> TensorData::make(DType dtype, uint64_t first, uint64_t count) const {
  const uint64_t item = item_bytes(dtype);
  if (kind_ == Kind::kHole) {
    return std::vector<std::byte>(count * item);
  }
  if (kind_ == Kind::kBytes) {
    if (bytes_.size() < (first + count) * item) {
      throw std::runtime_error("TensorData::bytes has fewer bytes than the shape needs");
    }
    const auto begin = bytes_.begin() + static_cast<ptrdiff_t>(first * item);
    return {begin, begin + static_cast<ptrdiff_t>(count * item)};
  }
  std::vector<std::byte> out;
  out.reserve(count * item);
  for (uint64_t i = first; i < first + count; ++i) {
    if (is_wide_float(dtype)) {
      put_float(out, dtype, kind_ == Kind::kConstant ? value_ : value_ * normal_value(seed_, i));
    } else if (kind_ == Kind::kConstant) {
      put_integer(out, dtype, static_cast<uint64_t>(static_cast<int64_t>(value_)));
    } else {
      put_integer(out, dtype, random_word(seed_, i));
    }
  }
  return out;
}

ModelBuilder& ModelBuilder::tensor(std::string name, DType dtype, Shape shape) {
  // FNV-1a, so that the content does not depend on the standard library.
  uint64_t seed = 0xCBF29CE484222325U;
  for (const char c : name) {
    seed = (seed ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
  }
  return tensor(std::move(name), dtype, std::move(shape), TensorData::normal(seed));
}

ModelBuilder& ModelBuilder::tensor(std::string name, DType dtype, Shape shape, TensorData data) {
  tensors_.push_back({std::move(name), dtype, std::move(shape), std::move(data)});
  return *this;
}

ModelBuilder& ModelBuilder::config(std::string json) {
  return file("config.json", std::move(json));
}

ModelBuilder& ModelBuilder::file(std::string name, std::string content) {
  texts_.push_back({std::move(name), std::move(content)});
  return *this;
}

ModelBuilder& ModelBuilder::shards(size_t count) {
  shards_ = count;
  return *this;
}

std::vector<std::vector<const ModelBuilder::Tensor*>> ModelBuilder::split() const {
  std::vector<std::vector<const Tensor*>> files(std::max<size_t>(shards_, 1));
  for (size_t i = 0; i < tensors_.size(); ++i) {
    files[i * files.size() / tensors_.size()].push_back(&tensors_[i]);
  }
  return files;
}

std::string ModelBuilder::shard_name(size_t shard) const {
  if (shards_ == 0) {
    return "model.safetensors";
  }
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", shard + 1, shards_);
  return name;
}

std::string ModelBuilder::index_json() const {
  nlohmann::ordered_json index;
  uint64_t total = 0;
  auto& map = index["weight_map"] = nlohmann::ordered_json::object();
  const auto files = split();
  for (size_t shard = 0; shard < files.size(); ++shard) {
    for (const Tensor* tensor : files[shard]) {
      map[tensor->name] = shard_name(shard);
      total += bytes_of(tensor->dtype, tensor->shape);
    }
  }
  index["metadata"]["total_size"] = total;
  return index.dump(2) + '\n';
}

void ModelBuilder::write_safetensors(const std::string& path, const std::vector<const Tensor*>& tensors) {
  nlohmann::ordered_json header;
  header["__metadata__"]["format"] = "pt";
  uint64_t end = 0;
  for (const Tensor* tensor : tensors) {
    const uint64_t begin = end;
    end += bytes_of(tensor->dtype, tensor->shape);
    Shape shape = tensor->shape;
    if (!shape.empty()) {
      shape.back() *= elements_per_item(tensor->dtype);
    }
    header[tensor->name] = {
        {"dtype", std::string(safetensors_name(tensor->dtype))}, {"shape", shape}, {"data_offsets", {begin, end}}};
  }
  std::string json = header.dump();
  json.resize(round_up(json.size(), 8), ' ');
  const std::string head = safetensors_file(json);

  Env& env = Env::posix();
  const UniqueFd fd = require(env.open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644));
  require(env.write_at(fd.get(), std::as_bytes(std::span(head)), 0));
  require(env.truncate(fd.get(), head.size() + end));
  uint64_t position = head.size();
  for (const Tensor* tensor : tensors) {
    const uint64_t item = item_bytes(tensor->dtype);
    const uint64_t count = bytes_of(tensor->dtype, tensor->shape) / item;
    for (uint64_t first = 0; first < count && !tensor->data.is_hole(); first += kChunkElements) {
      const auto bytes = tensor->data.make(tensor->dtype, first, std::min(kChunkElements, count - first));
      require(env.write_at(fd.get(), bytes, position + first * item));
    }
    position += count * item;
  }
}

void ModelBuilder::write(const std::string& folder) const {
  make_directories(folder);
  const auto files = split();
  for (size_t shard = 0; shard < files.size(); ++shard) {
    write_safetensors(folder + '/' + shard_name(shard), files[shard]);
  }
  if (shards_ > 0) {
    write_file(folder + "/model.safetensors.index.json", index_json());
  }
  for (const Text& text : texts_) {
    write_file(folder + '/' + text.name, text.content);
  }
}

std::string ModelBuilder::write_hub(const std::string& hub, const std::string& repo, const std::string& commit) const {
  const std::string root = hub + "/models--" + repo;
  // The hub names blobs by content; commit and name are as good here and cost no hashing.
  const auto blob = [&](const std::string& name) {
    const std::string key = commit + '/' + name;
    return to_hex(sha256(std::as_bytes(std::span(key))));
  };
  std::string snapshot = root + "/snapshots/" + commit;
  const std::string staging = root + "/blobs";
  make_directories(snapshot);
  write(staging);
  for (const std::string& name : require(Env::posix().list(staging))) {
    if (name.size() == 64) {
      continue;  // a blob of an earlier call
    }
    const std::string key = blob(name);
    require(Env::posix().rename(fmt::format("{}/{}", staging, name), fmt::format("{}/{}", staging, key)));
    make_link("../../blobs/" + key, fmt::format("{}/{}", snapshot, name));
  }
  write_file(root + "/refs/main", commit);
  return snapshot;
}

std::vector<std::byte> ModelBuilder::content(std::string_view name) const {
  const auto found =
      std::find_if(tensors_.begin(), tensors_.end(), [&](const Tensor& tensor) { return tensor.name == name; });
  if (found == tensors_.end()) {
    throw std::runtime_error("ModelBuilder has no tensor " + std::string(name));
  }
  return found->data.make(found->dtype, 0, bytes_of(found->dtype, found->shape) / item_bytes(found->dtype));
}

std::string safetensors_file(std::string_view json, std::string_view data) {
  const auto size = std::bit_cast<std::array<char, 8>>(uint64_t{json.size()});
  std::string out(size.begin(), size.end());
  out += json;
  out += data;
  return out;
}

}  // namespace qcache

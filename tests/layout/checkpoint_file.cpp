#include "tests/layout/checkpoint_file.h"

#include <fcntl.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "core/base/digest.h"
#include "core/base/env.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

constexpr uint64_t kChunkBytes = uint64_t{4} << 20;

void require(const Status& status) {
  if (!status) {
    throw std::runtime_error(status.error().message);
  }
}

}  // namespace

void scrambled_bytes(uint32_t group, uint32_t stored, uint64_t offset, std::span<std::byte> out) {
  for (std::byte& byte : out) {
    uint64_t x = offset++ + (uint64_t{group} << 40) + (uint64_t{stored} << 32);
    x = (x ^ (x >> 31)) * 0x9E3779B97F4A7C15;
    byte = static_cast<std::byte>(x >> 56);
  }
}

void zero_bytes(uint32_t /*group*/, uint32_t /*stored*/, uint64_t /*offset*/, std::span<std::byte> out) {
  std::memset(out.data(), 0, out.size());
}

uint32_t tensor_crc(const LayoutPlan& plan, uint32_t group, uint32_t stored, const TensorBytes& tensors) {
  const StoredTensor tensor = plan.group(group)->encoding.stored[stored];
  if (!tensor.constant.empty()) {
    return crc32(0, std::as_bytes(std::span(tensor.constant)));
  }
  uint32_t crc = 0;
  const uint64_t size = tensor.size_bytes();
  std::vector<std::byte> chunk(std::min(size, kChunkBytes));
  for (uint64_t offset = 0; offset < size; offset += chunk.size()) {
    const auto part = std::span(chunk).first(std::min<uint64_t>(chunk.size(), size - offset));
    tensors(group, stored, offset, part);
    crc = crc32(crc, part);
  }
  return crc;
}

std::vector<std::byte> make_bytes(const LayoutPlan& plan, ByteRange range, const TensorBytes& tensors) {
  std::vector<std::byte> out(range.size, std::byte{0xEE});
  for (const Piece& piece : plan.locate(range)) {
    const auto part = std::span(out).subspan(piece.range.offset - range.offset, piece.range.size);
    switch (piece.kind) {
      case PieceKind::kStatic:
        plan.render_static(piece.range, part);
        break;
      case PieceKind::kStored:
        tensors(piece.group, piece.stored, piece.stored_offset, part);
        break;
      case PieceKind::kTrailer: {
        const auto trailer =
            plan.trailer(piece.group, piece.stored, tensor_crc(plan, piece.group, piece.stored, tensors));
        std::copy_n(trailer.begin() + static_cast<ptrdiff_t>(piece.stored_offset), part.size(), part.begin());
        break;
      }
    }
  }
  return out;
}

void write_checkpoint(const LayoutPlan& plan, const std::string& path, const TensorBytes& tensors) {
  Env& env = Env::posix();
  auto file = env.open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
  if (!file) {
    throw std::runtime_error(file.error().message);
  }
  require(env.truncate(file->get(), plan.size_bytes()));
  const std::vector<std::byte> zeros(kChunkBytes);
  for (uint64_t offset = 0; offset < plan.size_bytes(); offset += kChunkBytes) {
    const ByteRange range{offset, std::min(kChunkBytes, plan.size_bytes() - offset)};
    const std::vector<std::byte> bytes = make_bytes(plan, range, tensors);
    if (std::memcmp(bytes.data(), zeros.data(), bytes.size()) != 0) {
      require(env.write_at(file->get(), bytes, offset));
    }
  }

  nlohmann::ordered_json manifest = nlohmann::ordered_json::array();
  for (uint32_t g = 0; g < plan.group_count(); ++g) {
    const std::vector<StoredTensor> stored = plan.group(g)->encoding.stored;
    for (uint32_t s = 0; s < stored.size(); ++s) {
      manifest.push_back({{"name", stored[s].name},
                          {"dtype", torch_name(stored[s].dtype)},
                          {"shape", stored[s].shape},
                          {"crc32", tensor_crc(plan, g, s, tensors)}});
    }
  }
  write_file(path + ".json", manifest.dump());
}

}  // namespace qcache

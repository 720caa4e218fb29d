#include "core/engine/assembly.h"

#include <algorithm>
#include <string>

#include <fmt/format.h>

#include "core/base/digest.h"
#include "core/base/page_buffer.h"

namespace qcache {

tl::unexpected<Error> Assembly::corrupt(std::string_view what) const {
  return fail(ErrorKind::kCorrupt, fmt::format("the cached file of {} {}", filling_.key().virtual_path, what));
}

Status Assembly::read(ByteRange range, const FromMemory& memory, std::span<std::byte> out) const {
  QCACHE_TRY_ASSIGN(const size_t got, env_.read_at(filling_.fd(), out, range.offset));
  if (got != out.size()) {
    return corrupt("was cut short: remove it (rm) and read again");
  }
  memory.overlay(range, out);
  plan_.render_static(range, out);
  for (const Piece& piece : plan_.locate(range)) {
    if (piece.kind == PieceKind::kTrailer) {
      QCACHE_TRY_ASSIGN(const std::vector<std::byte> bytes, trailer(piece, memory));
      std::copy(bytes.begin(), bytes.end(), out.begin() + static_cast<ptrdiff_t>(piece.range.offset - range.offset));
    }
  }
  return {};
}

Status Assembly::for_static_bytes(const UseBytes& use) const {
  constexpr uint64_t kWindowBytes = uint64_t{4} << 20;
  const ByteRange whole{0, plan_.size_bytes()};
  std::vector<std::byte> buffer;
  for (uint64_t offset = 0; offset < whole.size; offset += kWindowBytes) {
    for (const Piece& piece : plan_.locate(ByteRange{offset, kWindowBytes}.intersect(whole))) {
      if (piece.kind == PieceKind::kStatic) {
        buffer.resize(piece.range.size);
        plan_.render_static(piece.range, buffer);
      } else if (piece.kind == PieceKind::kTrailer) {
        QCACHE_TRY_ASSIGN(buffer, trailer(piece, {}));
      } else {
        continue;
      }
      QCACHE_TRY(use(buffer, piece.range.offset));
    }
  }
  return {};
}

Status Assembly::write_static_bytes() const {
  return for_static_bytes(
      [&](std::span<const std::byte> bytes, uint64_t offset) { return env_.write_at(filling_.fd(), bytes, offset); });
}

Status Assembly::check_static_bytes() const {
  std::vector<std::byte> found;
  return for_static_bytes([&](std::span<const std::byte> bytes, uint64_t offset) -> Status {
    found.resize(bytes.size());
    QCACHE_TRY_ASSIGN(const size_t got, env_.read_at(filling_.fd(), found, offset));
    if (got != bytes.size() || !std::ranges::equal(found, bytes)) {
      return corrupt("is damaged on disk: it is dropped, and made again by who opens it next");
    }
    return {};
  });
}

Result<std::vector<std::byte>> Assembly::trailer(const Piece& piece, const FromMemory& memory) const {
  QCACHE_TRY_ASSIGN(const uint32_t crc, stored_crc(piece.group, piece.stored, memory));
  const std::vector<std::byte> whole = plan_.trailer(piece.group, piece.stored, crc);
  const auto begin = whole.begin() + static_cast<ptrdiff_t>(piece.stored_offset);
  return std::vector<std::byte>(begin, begin + static_cast<ptrdiff_t>(piece.range.size));
}

Result<uint32_t> Assembly::stored_crc(uint32_t group, uint32_t stored, const FromMemory& memory) const {
  uint32_t crc = 0;
  const std::shared_ptr<const Group> planned = plan_.group(group);
  for (uint32_t index = planned->tiles.first; index < planned->tiles.end; ++index) {
    const TileMark* const unstored = memory.mark_of(index);
    const std::optional<TileMark> mark = unstored != nullptr ? *unstored : filling_.mark_of(index);
    if (!mark || !mark->crc) {
      // Another process found the tile's bytes wrong after we had verified them: the disk changed under us.
      return corrupt("changed on disk while it was read: read it again");
    }
    uint64_t bytes = 0;
    for (const ByteRange& range : plan_.tile_file_ranges(plan_.tile(index), stored)) {
      bytes += range.size;
    }
    crc = crc32_combine(crc, mark->crc->at(stored), bytes);
  }
  const StoredTensor& tensor = planned->encoding.stored[stored];
  if (tensor.order != UnitOrder::kFolded) {
    return crc;
  }
  // Each tile's bytes lie in two places, and their CRCs cannot be put together. Such tensors are small.
  return crc_of_file(ByteRange{planned->data_offsets[stored], tensor.size_bytes()}, memory);
}

Result<uint32_t> Assembly::crc_of_file(ByteRange range, const FromMemory& memory) const {
  constexpr uint64_t kReadBytes = uint64_t{1} << 20;
  PageBuffer buffer(std::min(kReadBytes, range.size));
  uint32_t crc = 0;
  while (!range.empty()) {
    const std::span<std::byte> part = std::span(buffer).first(std::min<uint64_t>(buffer.size(), range.size));
    QCACHE_TRY_ASSIGN(const size_t got, env_.read_at(filling_.fd(), part, range.offset));
    if (got != part.size()) {
      return corrupt("became shorter while it was read: read it again");
    }
    memory.overlay(ByteRange{range.offset, got}, part);
    crc = crc32(crc, part);
    range = ByteRange{range.offset + got, range.size - got};
  }
  return crc;
}

}  // namespace qcache

#include "core/store/file_parts.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>

#include "core/base/page_buffer.h"

namespace qcache {
namespace {

constexpr unsigned kBitsPerByte = 7;
constexpr uint8_t kMore = 0x80;

// Little-endian base 128 (LEB128).
void append_number(uint64_t value, std::vector<uint8_t>& out) {
  while (value >= kMore) {
    out.push_back(static_cast<uint8_t>(value) | kMore);
    value >>= kBitsPerByte;
  }
  out.push_back(static_cast<uint8_t>(value));
}

class NumberReader {
 public:
  explicit NumberReader(std::span<const uint8_t> bytes) : rest_(bytes) {}
  [[nodiscard]] bool at_end() const { return rest_.empty(); }
  Result<uint64_t> next() {
    uint64_t value = 0;
    for (unsigned shift = 0; !rest_.empty() && shift < 64; shift += kBitsPerByte) {
      const uint8_t byte = rest_.front();
      rest_ = rest_.subspan(1);
      value |= uint64_t{static_cast<uint8_t>(byte & ~kMore)} << shift;
      if ((byte & kMore) == 0) {
        return value;
      }
    }
    return fail(ErrorKind::kCorrupt, "the places of a file's tiles are damaged in the catalog");
  }

 private:
  std::span<const uint8_t> rest_;
};

// Tiles of one tensor may lie before one another, so distances have a sign (zigzag).
uint64_t unsigned_of(int64_t value) {
  return (std::bit_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63);
}
uint64_t plus_distance(uint64_t position, uint64_t encoded) {
  return position + ((encoded >> 1) ^ (0 - (encoded & 1)));
}

Error damaged() {
  return {ErrorKind::kCorrupt, 0, "the places of a file's tiles in the catalog do not fit the file"};
}

}  // namespace

void TilePlaces::add(std::span<const ByteRange> ranges) {
  append_number(ranges.size(), encoded_);
  for (const ByteRange& range : ranges) {
    append_number(unsigned_of(static_cast<int64_t>(range.offset - last_end_)), encoded_);
    append_number(range.size, encoded_);
    last_end_ = range.end();
  }
}

Status TilePlaces::for_each(const Use& use) const {
  NumberReader numbers(encoded_);
  std::vector<ByteRange> ranges;
  uint64_t last_end = 0;
  for (uint32_t tile = 0; !numbers.at_end(); ++tile) {
    ranges.clear();
    QCACHE_TRY_ASSIGN(const uint64_t count, numbers.next());
    for (uint64_t i = 0; i < count; ++i) {
      QCACHE_TRY_ASSIGN(const uint64_t distance, numbers.next());
      QCACHE_TRY_ASSIGN(const uint64_t size, numbers.next());
      ranges.push_back({plus_distance(last_end, distance), size});
      last_end = ranges.back().end();
    }
    QCACHE_TRY(use(tile, ranges));
  }
  return {};
}

Result<std::vector<ByteRange>> TilePlaces::rest(uint64_t size_bytes) const {
  std::vector<ByteRange> covered;
  QCACHE_TRY(for_each([&](uint32_t /*tile*/, const std::vector<ByteRange>& ranges) -> Status {
    for (const ByteRange& range : ranges) {
      if (range.offset > size_bytes || range.size > size_bytes - range.offset) {
        return fail(damaged());
      }
      if (!covered.empty() && covered.back().end() == range.offset) {
        covered.back().size += range.size;
      } else if (!range.empty()) {
        covered.push_back(range);
      }
    }
    return {};
  }));
  std::ranges::sort(covered, {}, &ByteRange::offset);
  std::vector<ByteRange> out;
  uint64_t position = 0;
  covered.push_back({size_bytes, 0});
  for (const ByteRange& range : covered) {
    if (range.offset < position) {
      return fail(damaged());
    }
    if (range.offset > position) {
      out.push_back({position, range.offset - position});
    }
    position = range.end();
  }
  return out;
}

Sha256Digest FileParts::root(uint64_t size_bytes, std::span<const Sha256Digest> tiles) const {
  Sha256 hash;
  hash.update(std::as_bytes(std::span("qcache file parts 1")));
  for (const uint64_t number : {size_bytes, uint64_t{places.encoded().size()}, uint64_t{tiles.size()}}) {
    std::vector<uint8_t> bytes;
    append_number(number, bytes);
    hash.update(std::as_bytes(std::span(bytes)));
  }
  hash.update(std::as_bytes(std::span(rest)));
  hash.update(std::as_bytes(std::span(places.encoded())));
  hash.update(std::as_bytes(tiles));
  return hash.finish();
}

std::vector<uint8_t> FileParts::encode() const {
  std::vector<uint8_t> out(rest.begin(), rest.end());
  out.insert(out.end(), places.encoded().begin(), places.encoded().end());
  return out;
}

Result<FileParts> FileParts::decode(std::span<const uint8_t> bytes) {
  FileParts parts;
  if (bytes.size() < parts.rest.size()) {
    return fail(damaged());
  }
  std::ranges::copy(bytes.first(parts.rest.size()), parts.rest.begin());
  const auto places = bytes.subspan(parts.rest.size());
  parts.places = TilePlaces({places.begin(), places.end()});
  return parts;
}

Result<std::optional<Sha256Digest>> digest_of_ranges(Env& env, int fd, std::span<const ByteRange> ranges,
                                                     const KeepGoing& keep_going) {
  constexpr uint64_t kPieceBytes = uint64_t{1} << 20U;
  Sha256 hash;
  thread_local PageBuffer buffer;
  for (ByteRange range : ranges) {
    while (!range.empty()) {
      if (keep_going && !keep_going()) {
        return fail(ErrorKind::kInterrupted, "hashing a cached file was interrupted");
      }
      buffer.resize(std::min(kPieceBytes, range.size));
      QCACHE_TRY_ASSIGN(const size_t got, env.read_at(fd, buffer, range.offset));
      if (got != buffer.size()) {
        return std::optional<Sha256Digest>();
      }
      hash.update(buffer);
      range = {range.offset + got, range.size - got};
    }
  }
  return std::optional(hash.finish());
}

Result<bool> has_parts(Env& env, int fd, uint64_t size_bytes, const FileParts& parts,
                       std::span<const Sha256Digest> tiles, const KeepGoing& keep_going) {
  QCACHE_TRY_ASSIGN(const FileStat stat, env.stat(fd));
  if (stat.size_bytes != size_bytes) {
    return false;
  }
  size_t seen = 0;
  bool right = true;
  const auto is_right = [&](std::span<const ByteRange> ranges, const Sha256Digest& digest) -> Result<bool> {
    QCACHE_TRY_ASSIGN(const auto found, digest_of_ranges(env, fd, ranges, keep_going));
    return found == digest;
  };
  const auto hash_all = [&]() -> Status {
    QCACHE_TRY_ASSIGN(const auto rest, parts.places.rest(size_bytes));
    QCACHE_TRY_ASSIGN(right, is_right(rest, parts.rest));
    return parts.places.for_each([&](uint32_t tile, const std::vector<ByteRange>& ranges) -> Status {
      ++seen;
      if (right && tile < tiles.size()) {
        QCACHE_TRY_ASSIGN(right, is_right(ranges, tiles[tile]));
      }
      return {};
    });
  };
  if (const Status hashed = hash_all(); !hashed) {
    return hashed.error().kind == ErrorKind::kCorrupt ? Result<bool>(false) : fail(hashed.error());
  }
  return right && seen == tiles.size();
}

}  // namespace qcache

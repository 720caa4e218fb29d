#include "core/store/tile_map.h"

#include <fmt/format.h>

#include <cstring>
#include <thread>
#include <type_traits>
#include <vector>

#include "core/store/kept.h"

namespace qcache {
namespace {

constexpr std::array<char, 8> kMagic = {'q', 'c', 'a', 'c', 'h', 'e', 'M', '3'};
constexpr size_t kHeaderBytes = 4096;
constexpr size_t kEntryBytes = 64;

struct Header {
  std::array<char, 8> magic;
  uint64_t size_bytes;
  uint32_t tile_count;
  uint32_t file_bytes;
  uint32_t path_bytes;
  uint32_t reserved;
  Sha256Digest recipe;
  std::array<char, FillingKey::kMaxFileName> file;
  std::array<char, FillingKey::kMaxVirtualPath> path;
  Sha256Digest digest;  ///< of all that precedes it
};
static_assert(std::is_trivially_copyable_v<Header> && sizeof(Header) <= kKeptOffset);
static_assert(kKeptOffset + kKeptBytes <= kHeaderBytes);

// Written and read as one word, which nobody sees half of.
constexpr uint64_t kCompleteOffset = 3776;
constexpr std::array<char, 8> kComplete = {'c', 'o', 'm', 'p', 'l', 'e', 't', 'e'};
static_assert(sizeof(Header) <= kCompleteOffset && kCompleteOffset + sizeof(kComplete) <= kKeptOffset);

Result<bool> read_complete(Env& env, int fd) {
  std::array<char, 8> word{};
  QCACHE_TRY_ASSIGN(const size_t got, env.read_at(fd, std::as_writable_bytes(std::span(word)), kCompleteOffset));
  return got == sizeof(word) && word == kComplete;
}

// Flags of an entry.
constexpr uint32_t kMade = 1;
constexpr uint32_t kHasCrc = 2;
constexpr uint32_t kHasDigest = 4;

Sha256Digest digest_of(const Header& header) {
  return sha256(std::as_bytes(std::span(&header, 1)).first(offsetof(Header, digest)));
}

uint64_t map_bytes(uint32_t tile_count) {
  return kHeaderBytes + uint64_t{tile_count} * kEntryBytes;
}

Result<Header> make_header(const FillingKey& key) {
  if (key.file.size() > FillingKey::kMaxFileName || key.virtual_path.size() > FillingKey::kMaxVirtualPath) {
    return fail(ErrorKind::kInvalidArgument,
                fmt::format("the path of '{}' is too long to be cached", key.virtual_path));
  }
  Header header{};
  header.magic = kMagic;
  header.size_bytes = key.size_bytes;
  header.tile_count = key.tile_count;
  header.file_bytes = static_cast<uint32_t>(key.file.size());
  header.path_bytes = static_cast<uint32_t>(key.virtual_path.size());
  header.recipe = key.recipe;
  std::memcpy(header.file.data(), key.file.data(), key.file.size());
  std::memcpy(header.path.data(), key.virtual_path.data(), key.virtual_path.size());
  header.digest = digest_of(header);
  return header;
}

}  // namespace

Result<FillingKey> TileMap::read_key(Env& env, int fd) {
  const auto broken = [] { return fail(ErrorKind::kCorrupt, "the map of a filling file is damaged"); };
  QCACHE_TRY_ASSIGN(const FileStat stat, env.stat(fd));
  Header header{};
  QCACHE_TRY_ASSIGN(const size_t got, env.read_at(fd, std::as_writable_bytes(std::span(&header, 1)), 0));
  if (got != sizeof(header) || header.magic != kMagic || header.digest != digest_of(header) ||
      header.file_bytes > FillingKey::kMaxFileName || header.path_bytes > FillingKey::kMaxVirtualPath ||
      stat.size_bytes != map_bytes(header.tile_count)) {
    return broken();
  }
  FillingKey key;
  key.file.assign(header.file.data(), header.file_bytes);
  key.virtual_path.assign(header.path.data(), header.path_bytes);
  key.recipe = header.recipe;
  key.size_bytes = header.size_bytes;
  key.tile_count = header.tile_count;
  return key;
}

// All zeros where the tile is not made.
struct alignas(kEntryBytes) TileMap::Entry {
  uint32_t checksum;  ///< CRC-32 of the rest
  uint32_t flags;
  Sha256Digest digest;
  std::array<uint32_t, TileMark::kMaxStored> crc;

  static Entry of(const TileMark& mark) {
    Entry entry{};
    entry.flags = kMade | (mark.crc ? kHasCrc : 0) | (mark.digest ? kHasDigest : 0);
    entry.digest = mark.digest.value_or(Sha256Digest{});
    entry.crc = mark.crc.value_or(std::array<uint32_t, TileMark::kMaxStored>{});
    entry.checksum = entry.sum();
    return entry;
  }
  [[nodiscard]] uint32_t sum() const { return crc32(0, std::as_bytes(std::span(this, 1)).subspan(sizeof(checksum))); }
  [[nodiscard]] bool is_blank() const { return checksum == 0 && flags == 0; }
  [[nodiscard]] bool is_made() const { return (flags & kMade) != 0 && checksum == sum(); }
};

bool FillingKey::makes_same_bytes(const FillingKey& other) const {
  return file == other.file && recipe == other.recipe && size_bytes == other.size_bytes &&
         tile_count == other.tile_count;
}

Status TileMap::format(Env& env, int fd, const FillingKey& key) {
  QCACHE_TRY_ASSIGN(const Header header, make_header(key));
  const uint64_t bytes = map_bytes(key.tile_count);
  QCACHE_TRY(env.truncate(fd, bytes));
  QCACHE_TRY(env.allocate(fd, bytes));
  return env.write_at(fd, std::as_bytes(std::span(&header, 1)), 0);
}

Result<std::unique_ptr<TileMap>> TileMap::open(Env& env, int fd) {
  static_assert(sizeof(Entry) == kEntryBytes && std::is_trivially_copyable_v<Entry>);
  QCACHE_TRY_ASSIGN(FillingKey key, read_key(env, fd));
  return std::unique_ptr<TileMap>(new TileMap(env, fd, std::move(key)));
}

Result<TileMap::Summary> TileMap::summarize(Env& env, int fd) {
  Summary summary;
  QCACHE_TRY_ASSIGN(summary.key, read_key(env, fd));
  QCACHE_TRY_ASSIGN(summary.complete, read_complete(env, fd));
  constexpr uint64_t kEntriesPerRead = 4096;
  std::vector<Entry> entries;
  for (uint64_t done = 0; done < summary.key.tile_count; done += entries.size()) {
    entries.resize(std::min(kEntriesPerRead, summary.key.tile_count - done));
    const std::span<std::byte> out = std::as_writable_bytes(std::span(entries));
    QCACHE_TRY_ASSIGN(const size_t got, env.read_at(fd, out, kHeaderBytes + done * kEntryBytes));
    if (got != out.size()) {
      return fail(ErrorKind::kCorrupt, "the map of a filling file is cut short");
    }
    for (const Entry& entry : entries) {
      summary.marked_count += entry.is_made() ? 1U : 0U;
    }
  }
  return summary;
}

std::optional<TileMark> TileMap::mark_of(uint32_t tile) const {
  // Of an entry that is being written, a look may see some words of before and some of after. That takes the writer
  // nanoseconds, so one that does not come right is damaged.
  constexpr int kLooks = 4;
  for (int look = 0; look < kLooks; ++look) {
    Entry entry{};
    // One that cannot be read is as one that is not there: its tile is made again.
    const auto got =
        env_.read_at(fd_, std::as_writable_bytes(std::span(&entry, 1)), kHeaderBytes + uint64_t{tile} * kEntryBytes);
    if (got.value_or(0) != sizeof(entry) || entry.is_blank()) {
      return std::nullopt;
    }
    if (entry.is_made()) {
      TileMark mark;
      if ((entry.flags & kHasDigest) != 0) {
        mark.digest = entry.digest;
      }
      if ((entry.flags & kHasCrc) != 0) {
        mark.crc = entry.crc;
      }
      return mark;
    }
    std::this_thread::yield();
  }
  return std::nullopt;
}

Status TileMap::write(uint32_t tile, const Entry& entry) {
  return env_.write_at(fd_, std::as_bytes(std::span(&entry, 1)), kHeaderBytes + uint64_t{tile} * kEntryBytes);
}

Status TileMap::mark(uint32_t tile, const TileMark& mark) {
  return write(tile, Entry::of(mark));
}

Status TileMap::add_digest(uint32_t tile, const Sha256Digest& digest) {
  auto mark = mark_of(tile);
  if (!mark.has_value()) {
    return {};
  }
  mark->digest = digest;
  return write(tile, Entry::of(*mark));
}

Status TileMap::unmark(uint32_t tile) {
  return write(tile, Entry{});
}

uint32_t TileMap::marked_count() const {
  const auto summary = summarize(env_, fd_);
  return summary.has_value() ? summary->marked_count : 0;
}

bool TileMap::is_complete() const {
  return read_complete(env_, fd_).value_or(false);
}

Status TileMap::set_complete(Env& env, int fd, bool complete) {
  const std::array<char, 8> word = complete ? kComplete : std::array<char, 8>{};
  return env.write_at(fd, std::as_bytes(std::span(word)), kCompleteOffset);
}

}  // namespace qcache
